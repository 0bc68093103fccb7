"""``spec.kv.scope: Cluster``: a plugin's keys on a Valkey or Redis server, the same for all pods.

They do what those of the pod's store do (``hookline_runtime.host.kv``), with the same caps of one plugin and the same
codes. Each operation is one script on the server (``kv_scripts``), and is acknowledged to the guest only once the
server has answered. What the server then makes of it is its own: with ``appendfsync always`` it is on its disk.

Nothing is sent a second time. Where an answer is lost (the server went away, or took too long), the operation has
failed for the guest and may have been done all the same: a count may be higher than what was acknowledged, never lower.

What then happens is ``failurePolicy.store``: the call ends, or, with PodLocal, the pod's own store is asked instead.
The two are never merged: what is counted in a pod meanwhile is not known to the server afterwards, and the other way
round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE, E_UNAVAILABLE
from hookline_api.outbound import KEYS
from hookline_runtime.errors import StoreError
from hookline_runtime.host import kv_scripts as scripts
from hookline_runtime.host.arguments import ABSENT, U32, CodeError, read, write
from hookline_runtime.host.backends.valkey import Send, Valkey, ValkeyError, ValkeyReplyError
from hookline_runtime.host.kv import MAX_KEY, MAX_VALUE, KvError, KvStore, key_on_server
from hookline_runtime.host.kv_functions import KV_FUNCTIONS, MAX_LISTED, MOST_PATIENT_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import ValkeyServer
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.host.backends.resp import Reply
    from hookline_runtime.host.backends.valkey import Script
    from hookline_runtime.host.context import HostContext

_LONGEST_TTL: Final = 2**52
"""In ms: 142,000 years, and a sorted set's numbers are exact so far."""
_SENTENCES: Final = {
    E_CAP: "the plugin has as many keys as it may have, or the server's memory is full",
    E_ARGUMENT: "the value is not a decimal number, or the sum does not fit into 64 bits",
    E_SIZE: "the keys have too many bytes together",
}
_INITIAL: Final = "spec.kv.initial"
_SUM: Final = re.compile(rb"-?[0-9]{1,19}")

_T = TypeVar("_T")
log = logging.getLogger("hookline.kv")


class ClusterKv:
    """One plugin's keys on its server: the operations of ``KvStore``, with their meaning.

    All raise ValkeyError where there is no answer, or none that can be used, and KvError where a cap is reached.
    """

    def __init__(self, plugin: BundlePlugin, server: ValkeyServer, unavailable: dict[str, str]) -> None:
        self._plugin = plugin
        self._unavailable = unavailable
        self._refused = False
        parts = ("entries", "ends", "keys", "initial")
        self._keys = tuple(key_on_server(plugin.namespace, plugin.name, part).encode() for part in parts)
        prepare = self._write_initial if plugin.kv.initial else None
        owner = f"{plugin.namespace or ''}/{plugin.name}"
        self._valkey = Valkey(server, plugin.credentials, unavailable, KEYS, owner=owner, prepare=prepare)

    def close(self) -> None:
        """End the connection, on the event loop."""
        self._valkey.close()

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None where there is none or its time is over."""
        reply = await self._run(scripts.GET, key)
        return reply if reply is None else _bytes(reply)

    async def put(self, key: bytes, value: bytes) -> None:
        """Store, without a time limit."""
        _check_size(key, value)
        _number(await self._run(scripts.PUT, key, value))

    async def delete(self, key: bytes) -> None:
        """Remove; no error where there is nothing."""
        _number(await self._run(scripts.DELETE, key))

    async def increment(self, key: bytes, by: int) -> int:
        """Add to a decimal number, starting from 0, and keep its time limit; the sum."""
        _check_size(key, b"")
        reply = await self._run(scripts.INCREMENT, key, b"%d" % by)
        if not isinstance(reply, bytes):
            return _number(reply)
        if not _SUM.fullmatch(reply) or not -(2**63) < (total := int(reply)) < 2**63:
            raise _unusable()
        return total

    async def compare_and_set(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Store ``new`` if the value is ``old`` (None: if there is none); whether it was. Drops a time limit."""
        _check_size(key, new)
        given = (b"0", b"") if old is None else (b"1", old)
        return bool(_number(await self._run(scripts.COMPARE_AND_SET, key, *given, new)))

    async def set_ttl(self, key: bytes, ttl_ms: int) -> bool:
        """Let the entry end after that time, or never for 0 and less; whether there is one."""
        return bool(_number(await self._run(scripts.SET_TTL, key, b"%d" % max(0, min(ttl_ms, _LONGEST_TTL)))))

    async def list_keys(self, prefix: bytes, *, at_most: int = MAX_LISTED) -> list[bytes]:
        """The keys with that prefix, sorted. Raises KvError where they have more than ``at_most`` bytes together."""
        reply = await self._run(scripts.LIST, prefix, b"%d" % at_most)
        if isinstance(reply, list):
            return [_bytes(each) for each in reply]
        _number(reply)
        raise _unusable()

    async def _run(self, script: Script, *arguments: bytes) -> Reply:
        try:
            reply = await self._valkey.script(script, self._keys, arguments)
        except ValkeyReplyError as error:
            if error.code == "OOM":
                raise KvError(E_CAP, "the server's memory is full") from None
            self._refused = True
            self._unavailable[KEYS] = str(error)
            raise
        if self._refused:  # by its rights, or its disk; and it takes commands again
            self._refused = False
            self._unavailable.pop(KEYS, None)
        return reply

    async def _write_initial(self, send: Send) -> None:
        """Write what is due of ``spec.kv.initial`` before anybody's first command on a connection.

        Keys that do not fit are said, and keep nobody from those that there are.
        """
        plugin, script = self._plugin, scripts.INITIAL
        pairs = [part.encode() for pair in plugin.kv.initial.items() for part in pair]
        head = (plugin.kv.overwrite.encode(), (plugin.origin or "").encode(), b"%d" % (plugin.generation or 0))
        arguments = (b"%d" % len(self._keys), *self._keys, *head, *pairs)
        try:
            written = _number(await send(b"EVAL", script.text, *arguments))
        except KvError:
            self._unavailable[_INITIAL] = (
                "the keys of spec.kv.initial do not fit beside those that the plugin has on the server; delete keys, "
                "or ask for fewer"
            )
            return
        self._unavailable.pop(_INITIAL, None)
        if written:
            log.info("plugin '%s': %d keys of kv.initial are written on the server", plugin.name, written)


class ClusterKvFunctions:
    """``kv_get`` and its kind on the server; each waits. Raises ConfigError where its settings cannot be used."""

    def __init__(self, plugin: BundlePlugin, context: HostContext, unavailable: dict[str, str]) -> None:
        server = plugin.kv.valkey
        if server is None:  # which the settings' own validation refuses
            raise ValueError("scope: Cluster needs kv.valkey")
        self._name = plugin.name
        self._keys = ClusterKv(plugin, server, unavailable)
        self._falls_back = plugin.failure_policy.store == "PodLocal"
        self._store = context.kv
        self._patience = min(plugin.limits.timeout / 1000, MOST_PATIENT_S)

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """By name of the import."""
        return {name: getattr(self, f"_{name}") for name in KV_FUNCTIONS}

    def close(self) -> None:
        """End the connection, on the event loop."""
        self._keys.close()

    async def _either(self, asked: Awaitable[_T], local: Callable[[KvStore], _T]) -> _T:
        """The server's answer; where there is none, the pod's, or the end of the call."""
        try:
            return await asked
        except ValkeyError as error:
            if not self._falls_back:
                raise StoreError(f"the keys of plugin '{self._name}' cannot be asked: {error}") from None
        if self._store is None:
            raise CodeError(E_UNAVAILABLE)
        return await asyncio.to_thread(local, self._store)  # which may wait for other writers

    async def _kv_get(self, memory: GuestMemory, key: int, key_len: int, out: int, out_max: int) -> int:
        name = read(memory, key, key_len, MAX_KEY)
        value = await self._either(self._keys.get(name), lambda store: store.get(self._name, name))
        if value is None:
            return ABSENT  # an answer, not a refusal
        if len(value) > out_max & U32:
            raise CodeError(E_SIZE)
        write(memory, out, value)
        return len(value)

    async def _kv_set(self, memory: GuestMemory, key: int, key_len: int, value: int, value_len: int) -> int:
        name, data = read(memory, key, key_len, MAX_KEY), read(memory, value, value_len, MAX_VALUE)
        await self._either(
            self._keys.put(name, data), lambda store: store.put(self._name, name, data, patience=self._patience)
        )
        return 0

    async def _kv_delete(self, memory: GuestMemory, key: int, key_len: int) -> int:
        name = read(memory, key, key_len, MAX_KEY)
        await self._either(
            self._keys.delete(name), lambda store: store.delete(self._name, name, patience=self._patience)
        )
        return 0

    async def _kv_list(self, memory: GuestMemory, prefix: int, length: int) -> bytes:
        prefixed, names = read(memory, prefix, length, MAX_KEY), []
        for key in await self._either(
            self._keys.list_keys(prefixed),
            lambda store: store.list_keys(self._name, prefixed, at_most=MAX_LISTED),
        ):
            with contextlib.suppress(UnicodeDecodeError):
                names.append(key.decode())
        return orjson.dumps(names)

    async def _kv_incr(self, memory: GuestMemory, key: int, key_len: int, by: int) -> int:
        name = read(memory, key, key_len, MAX_KEY)
        return await self._either(
            self._keys.increment(name, by),
            lambda store: store.increment(self._name, name, by, patience=self._patience),
        )

    async def _kv_compare_and_set(
        self, memory: GuestMemory, key: int, key_len: int, old: int, old_len: int, new: int, new_len: int
    ) -> int:
        expected = None if old_len == ABSENT else read(memory, old, old_len, MAX_VALUE)
        name, value = read(memory, key, key_len, MAX_KEY), read(memory, new, new_len, MAX_VALUE)
        return int(
            await self._either(
                self._keys.compare_and_set(name, expected, value),
                lambda store: store.compare_and_set(self._name, name, expected, value, patience=self._patience),
            )
        )

    async def _kv_set_ttl(self, memory: GuestMemory, key: int, key_len: int, ttl_ms: int) -> int:
        name = read(memory, key, key_len, MAX_KEY)
        return int(
            await self._either(
                self._keys.set_ttl(name, ttl_ms),
                lambda store: store.set_ttl(self._name, name, ttl_ms, patience=self._patience),
            )
        )


def _check_size(key: bytes, value: bytes) -> None:
    if len(key) > MAX_KEY or len(value) > MAX_VALUE:
        raise KvError(E_SIZE, f"a key has at most {MAX_KEY} bytes and a value {MAX_VALUE}")


def _number(reply: Reply) -> int:
    """What a script has counted. Raises KvError for a code."""
    if not isinstance(reply, int) or (reply < 0 and reply not in _SENTENCES):
        raise _unusable()
    if reply < 0:
        raise KvError(reply, _SENTENCES[reply])
    return reply


def _bytes(reply: Reply) -> bytes:
    if not isinstance(reply, bytes):
        raise _unusable()
    return reply


def _unusable() -> ValkeyError:
    return ValkeyError("the server answers a script as it should not")
