"""kopf's part: the watch of ``WasmPlugin`` objects, as events without any state of kopf's own.

A thread with a loop of its own, because kopf cancels every task of its loop when it ends. The one handler only hands
the object over: no annotation, no finalizer and no status is written here, so kopf never writes at all. Which
replica acts on what it saw is decided elsewhere; each of them sees everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import kopf

from hookline_api.resources import GROUP, PLURAL, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from hookline_operator.kube import Object

_SERVER_S: Final = 290.0
_CLIENT_S: Final = 320.0
"""A watch ends after this long, whatever the connection says: one that hangs hears nothing."""

log = logging.getLogger("hookline.handlers")


class Handlers(threading.Thread):
    """Runs kopf until ``stop``; ``seen`` gets each object (and whether it is gone), in the caller's loop."""

    def __init__(
        self,
        seen: Callable[[Object, bool], None],
        *,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[], None],
        namespaces: Collection[str],
        kubeconfig: Path | None,
    ) -> None:
        """``ended`` is called, in the caller's loop, when kopf ends without having been told to."""
        super().__init__(name="kopf", daemon=True)
        self._seen = seen
        self._loop = loop
        self._ended = ended
        self._namespaces = namespaces
        self._stopping = threading.Event()
        logging.getLogger("kopf").setLevel(logging.WARNING)
        if kubeconfig is not None:
            os.environ["KUBECONFIG"] = str(kubeconfig)  # where kopf looks for it

    def run(self) -> None:
        """The thread's own: kopf until ``stop``."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_with_service_account)
        kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def plugin(event: kopf.RawEvent, **_: Any) -> None:
            found: Any = event["object"]
            self._loop.call_soon_threadsafe(self._seen, found, event["type"] == "DELETED")

        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True  # it would need the right to list all resources and namespaces
        settings.watching.server_timeout = _SERVER_S
        settings.watching.client_timeout = _CLIENT_S
        try:
            asyncio.run(
                kopf.operator(
                    registry=registry,
                    settings=settings,
                    standalone=True,
                    clusterwide=not self._namespaces,
                    namespaces=list(self._namespaces),
                    stop_flag=self._stopping,
                )
            )
        except Exception:
            log.exception("the watch of WasmPlugins ended")
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(self._ended)

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
