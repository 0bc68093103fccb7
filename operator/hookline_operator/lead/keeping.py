"""Keeps what resolved: each plugin's last good state as a ``WasmPluginRevision``, written by the leader.

A revision is stored before the one before it is deleted, so there is always one. It has a higher number, so every
replica knows which is current. The last one that has proven itself stays until the new one has, too (``settling.py``).
So a plugin has two revisions at most.

A revision that may be believed and has no seal (``revisions.py``) is *taken over*: the same text is written under the
same name with a seal, so no pod and no status changes. That happens in an upgrade from an operator that kept
``ControllerRevision`` objects, and when the key has changed. Nothing waits for it: what was kept before goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import orjson

from hookline_api.base import API_VERSION
from hookline_api.revisions import MAX_REVISION_DATA, REVISION_PLURAL
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_operator.cluster.kube import Kube, KubeError, path
from hookline_operator.cluster.revisions import Revision, Seal, body_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key, Object
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.revisions import Template
    from hookline_operator.metrics import Metrics

_AT_ONCE: Final = 16
"""How many are taken over at the same time. The API server has others to serve while 5,000 plugins are upgraded."""
_AGAIN_S: Final = 20.0
"""Seconds until a failed taking over is tried again. The revision goes on meanwhile, so there is no haste."""
_ATTEMPTS: Final = 2
"""How often one object is written: a second time after a foreign one of that name was deleted."""
_MAX_BYTES: Final = 1_500_000
"""Bytes of a revision's text in JSON, where each quote takes two. etcd takes 1.5 MiB for the whole object."""
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404

log = logging.getLogger("hookline.keeping")


class Keeper:
    """Writes revisions, while this replica leads."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        seal: Seal,
        metrics: Metrics,
        *,
        check_term: Callable[[], None],
        update: Callable[[Key], None],
    ) -> None:
        """``check_term`` raises KubeError where another replica may lead by now."""
        self._kube = kube
        self._catalogue = catalogue
        self._seal = seal
        self._metrics = metrics
        self._check_term = check_term
        self._update = update
        self._permits = asyncio.Semaphore(_AT_ONCE)
        self._underway: dict[Key, asyncio.Task[None]] = {}
        self._waiting: dict[Key, asyncio.TimerHandle] = {}
        self._said: set[str] = set()
        self._taken = 0

    def end(self) -> list[asyncio.Task[None]]:
        """The term has ended: take nothing more over. Returns the tasks that were under way, cancelled."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._said.clear()
        tasks = list(self._underway.values())
        for task in tasks:
            task.cancel()
        return tasks

    async def keep(self, plugin: Plugin, template: Template) -> None:
        """Make a template the plugin's current revision. Raises KubeError, and LoadError where it cannot be one."""
        current = self._catalogue.current(plugin)
        text = template.text().encode()
        body = self._body(plugin, text, self._next_number(plugin))
        if current is not None and current.sealed and current.name == body["metadata"]["name"]:
            return
        await self._store(plugin, body)
        self._metrics.new_revision(plugin.key)

    def take_over(self, plugin: Plugin, revision: Revision) -> None:
        """Write a revision that is believed and has no seal again, with a seal."""
        if plugin.key in self._underway or plugin.key in self._waiting:
            return
        task = asyncio.get_running_loop().create_task(
            self._take_over(plugin, revision), name=f"take over {revision.name}"
        )
        self._underway[plugin.key] = task
        task.add_done_callback(lambda _: self._done(plugin.key))

    def _done(self, key: Key) -> None:
        del self._underway[key]
        if not self._underway and self._taken:
            log.info("%d revisions of plugins were copied to WasmPluginRevisions of this operator", self._taken)
            self._taken = 0

    async def _take_over(self, plugin: Plugin, revision: Revision) -> None:
        try:
            async with self._permits:
                if self._catalogue.current(plugin) != revision or self._catalogue.plugin(plugin.key) is None:
                    return  # its turn came late: there is a newer one
                ours = [each.number for each in self._catalogue.revisions_of(plugin) if each.sealed]
                number = max([revision.number, 1, *(each + 1 for each in ours)])
                await self._store(plugin, self._body(plugin, revision.template, number, revision.name))
                self._taken += 1
        except (KubeError, ConfigError, FetchError, KeyError, TypeError, ValueError) as error:
            if revision.name not in self._said:
                self._said.add(revision.name)
                log.warning(
                    "the revision '%s' of plugin '%s/%s' cannot be taken over, and goes on as it is: %s",
                    *(revision.name, *plugin.key, error),
                )

            def again() -> None:
                del self._waiting[plugin.key]
                self._update(plugin.key)

            self._waiting[plugin.key] = asyncio.get_running_loop().call_later(_AGAIN_S, again)

    def _next_number(self, plugin: Plugin) -> int:
        current = self._catalogue.current(plugin)
        believed = [each.number for each in self._catalogue.revisions_of(plugin) if each.sealed]
        return max([0, *believed, *([current.number] if current is not None else [])]) + 1

    def _body(self, plugin: Plugin, text: bytes, number: int, name: str = "") -> Object:
        """The object. Raises ConfigError for one that cannot be stored."""
        body = body_of(
            namespace=plugin.namespace,
            plugin=plugin.name,
            uid=plugin.uid,
            number=number,
            template=text,
            seal=self._seal,
            name=name,
        )
        size = len(orjson.dumps(body["data"]))
        if size > _MAX_BYTES or len(body["data"]) > MAX_REVISION_DATA:
            raise ConfigError(
                f"it is too large to be kept: {size:,} bytes with what it resolved to, as JSON in JSON, {_MAX_BYTES:,} "
                "at most; move settings into a ConfigMap (spec.configFrom)"
            )
        return body

    async def drop(self, revision: Revision) -> None:
        """Delete a revision that is no longer needed. Raises KubeError."""
        self._check_term()
        await self._delete(f"{path(API_VERSION, REVISION_PLURAL, revision.namespace)}/{revision.name}")

    def _proven(self, plugin: Plugin) -> str | None:
        """The name of the last one that has proven itself: there is an older one only while the current has not."""
        believed = [each for each in self._catalogue.revisions_of(plugin) if each.sealed]
        return min(believed, key=lambda each: each.number).name if believed else None

    async def _store(self, plugin: Plugin, body: Object) -> None:
        """Write it, and delete what was before the one before it. Raises KubeError and FetchError."""
        where, name = path(API_VERSION, REVISION_PLURAL, plugin.namespace), body["metadata"]["name"]
        proven = self._proven(plugin)
        for _ in range(_ATTEMPTS):
            self._check_term()
            try:
                stored = await self._kube.request("POST", where, body=body)
            except KubeError as error:
                if error.status != _CONFLICT:
                    raise
                # Back to what it once was, before that was cleaned up; or the same text, which had no seal of ours.
                stored = await self._kube.request(
                    "PATCH",
                    f"{where}/{name}",
                    body={"revision": body["revision"], "seal": body.get("seal")},
                    content_type="application/merge-patch+json",
                )
            new = Revision.of(stored, self._seal)
            if new is not None and new.sealed and new.plugin_uid == plugin.uid and stored["data"] == body["data"]:
                break
            # Its name was guessed: names are made of what they hold. Nobody's but the operator's are such objects.
            log.warning("the WasmPluginRevision '%s/%s' is not ours, and is replaced", plugin.namespace, name)
            await self._delete(f"{where}/{name}")
        else:
            raise FetchError(f"there is a WasmPluginRevision '{name}' that is not ours: delete it", transient=False)
        self._metrics.wrote("revision")
        self._catalogue.put_revision((new.namespace, new.name), None, new)
        for each in self._catalogue.revisions_of(plugin):
            if each.name not in {new.name, proven}:
                with contextlib.suppress(KubeError):  # what is left goes with the next revision
                    await self._delete(f"{where}/{each.name}")

    async def _delete(self, where: str) -> None:
        try:
            await self._kube.request("DELETE", where)
        except KubeError as error:
            if error.status != _NOT_FOUND:
                raise
