"""kopf's part: the watch of ``WasmPlugin`` objects, as events without any state of kopf's own.

kopf runs in a thread with its own loop, because it cancels every task of its loop when it ends. Its one handler hands
each object over, and writes no annotation, finalizer or status. Every replica sees every object; which one acts on it
is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import kopf

from hookline_api.base import GROUP, PLURAL, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator
    from pathlib import Path

    from hookline_operator.cluster.kube import Object

_SERVER_S: Final = 15  # kopf writes it into the URL, and the API server wants a whole number
"""The API server ends a watch after this long. The next one tells what the server forgot (``reflector.py``)."""
_CLIENT_S: Final = 25
"""The client ends a watch after this long, since one that hangs hears nothing."""
_PAUSES_S: Final = (0.5, 1, 2, 4)
_PAUSE_LAST_S: Final = 8.0
_BEGIN_AGAIN_S: Final = 2.0
_LONG_S: Final = 30.0
"""kopf that ran for so long did not end for what it ended for before."""

log = logging.getLogger("hookline.handlers")


class _Pauses:
    """Between tries, without an end: an API server may be away for an hour, and the sidecars still need us."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(_PAUSES_S, itertools.repeat(_PAUSE_LAST_S))


class Handlers(threading.Thread):
    """Runs kopf until ``stop``. ``seen`` gets each object, and whether it is gone, in the caller's loop.

    ``served`` tells whether the API server knows the resource, and runs in the caller's loop too. kopf looks for the
    resource once, when it starts, and never sees it where that fails.
    """

    def __init__(
        self,
        seen: Callable[[Object, bool], None],
        served: Callable[[], Coroutine[Any, Any, bool]],
        *,
        loop: asyncio.AbstractEventLoop,
        namespaces: Collection[str],
        kubeconfig: Path | None,
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self._seen = seen
        self._served = served
        self._loop = loop
        self._namespaces = namespaces
        self._stopping = threading.Event()
        self._ending = threading.Event()
        """Ends the kopf that runs."""
        self._said: set[str] = set()
        # Each try of a request that fails is an error to kopf; that the API server is away is said once elsewhere.
        logging.getLogger("kopf").setLevel(logging.CRITICAL)
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

        while True:
            self._ending.clear()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                if asyncio.run_coroutine_threadsafe(self._served(), self._loop).result():
                    asyncio.run(self._watch(registry))
            except Exception as error:  # noqa: BLE001 - whatever kopf ends with; it is said
                if not self._stopping.is_set():
                    self._ended(error, lasted=time.monotonic() - began)
            self._ending.wait(_BEGIN_AGAIN_S)

    async def _watch(self, registry: kopf.OperatorRegistry) -> None:
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            stop_flag=self._ending,
        )

    def _ended(self, error: Exception, *, lasted: float) -> None:
        """Say why, once: what is behind it is said by who lists the same collection (``plugin_watch.py``)."""
        if lasted > _LONG_S:
            self._said.clear()
        name = type(error).__name__
        if name not in self._said:
            self._said.add(name)
            detail = log.isEnabledFor(logging.DEBUG)
            log.info("the watch of WasmPlugins ended, and is started again: %s: %s", name, error, exc_info=detail)

    def begin_again(self) -> None:
        """End the watch that there is, and list everything anew."""
        self._ending.set()

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
        self._ending.set()


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # it would need the right to list all resources and namespaces
    settings.watching.server_timeout = _SERVER_S
    settings.watching.client_timeout = _CLIENT_S
    settings.networking.error_backoffs = _Pauses()
    return settings
