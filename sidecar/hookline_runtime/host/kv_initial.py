"""``spec.kv.initial``: a plugin's keys are in the store before its first call, and are written once for each reason.

For each plugin the store remembers, by key, a hash of the value that was last written from the resource. ``Never``
writes a key that is not remembered, where the store has none; ``OnChange`` writes a key whose value is not the one
that is remembered. So neither a restart, nor another revision, nor one that comes back undoes what a guest or an
administrator has done since: not even that a key was deleted. What is left out of ``initial`` stays in the store, and
stays remembered.

All keys of all plugins are written in one transaction: guests see all of them, or none.

Keys that all pods share (``kv.scope: Cluster``) are written by ``kv_cluster``, on their server; and here too where the
pod's store stands in while that is away.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Final

import lmdb

from hookline_api.abi import E_UNAVAILABLE
from hookline_artifacts.errors import ConfigError
from hookline_runtime.host.kv import Change, KvError, KvStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_api.bundle import BundlePlugin
    from hookline_api.resources import KvSettings

_HASH: Final = 16
_NEVER_WRITTEN: Final = bytes(_HASH)
"""In the place of a value's hash: there was a value of somebody else's already."""
_MAX_REMEMBERED: Final = 2048
"""Keys of one plugin; beyond that, those that are no longer in its ``initial`` are forgotten."""
_TOLD: Final = 10

log = logging.getLogger("hookline.kv")

_Record = dict[bytes, bytes]
"""Of each key's hash, that of the value that was last written."""


class InitialKeysError(ConfigError):
    """The store does not take the initial keys of one plugin, and has got none of any."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin


def write(store: KvStore | None, plugins: Iterable[BundlePlugin], *, only_try: bool = False) -> None:
    """Write what is due of the initial keys of these plugins, in one transaction. Raises InitialKeysError.

    With ``only_try`` nothing is written, and what would be raised is. Blocks while other processes write.
    """
    wanted = [entry for entry in plugins if entry.artifact is not None and entry.kv.initial and _in_pod(entry)]
    if not wanted:
        return
    at = wanted[0]
    written: dict[str, list[str]] = {}
    try:
        if store is None:
            raise InitialKeysError(at.name, "spec.kv.initial needs a key-value store, and there is none here")
        # First without a transaction that keeps guests from writing: mostly nothing is due.
        due = [entry for entry in wanted if _due(_parsed(store.record(entry.name)), entry.kv)]
        if not due:
            return
        with store.changes(only_try=only_try) as changed:
            for at in due:
                written[at.name] = _write(changed(at.name), at.kv)
    except KvError as error:
        if error.code == E_UNAVAILABLE:
            raise InitialKeysError(at.name, f"the keys of spec.kv.initial cannot be stored: {error}") from None
        message = f"the keys of spec.kv.initial do not fit into the store: {error}; delete keys, or ask for fewer"
        raise InitialKeysError(at.name, message) from None
    except lmdb.Error as error:
        raise InitialKeysError(at.name, f"the keys of spec.kv.initial cannot be stored: {error}") from error
    for name, keys in written.items() if not only_try else ():
        more = f" and {len(keys) - _TOLD} more" if len(keys) > _TOLD else ""
        shown = ", ".join(repr(key[:64]) for key in keys[:_TOLD])
        log.info("plugin '%s': %d keys of kv.initial are written: %s%s", name, len(keys), shown or "none", more)


def _in_pod(plugin: BundlePlugin) -> bool:
    return plugin.kv.scope == "Pod" or plugin.failure_policy.store == "PodLocal"


def _write(change: Change, kv: KvSettings) -> list[str]:
    """Write what is due into one namespace, and remember it; the keys that were written."""
    record, written = _parsed(change.record()), []
    for key, value in _due(record, kv).items():
        name, data = key.encode(), value.encode()
        if kv.overwrite == "OnChange" or change.entry(name) is None:
            change.put(name, data)
            record[_hash(name)] = _hash(data)
            written.append(key)
        else:
            record[_hash(name)] = _NEVER_WRITTEN
    if len(record) > _MAX_REMEMBERED:
        record = {key: record[key] for key in (_hash(each.encode()) for each in kv.initial)}
    change.set_record(b"".join(key + value for key, value in record.items()))
    return written


def _due(record: _Record, kv: KvSettings) -> dict[str, str]:
    """What has to be looked at, or written."""
    if kv.overwrite == "Never":
        return {key: value for key, value in kv.initial.items() if _hash(key.encode()) not in record}
    return {key: value for key, value in kv.initial.items() if record.get(_hash(key.encode())) != _hash(value.encode())}


def _parsed(record: bytes) -> _Record:
    size = 2 * _HASH
    return {record[at : at + _HASH]: record[at + _HASH : at + size] for at in range(0, len(record), size)}


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_HASH]
