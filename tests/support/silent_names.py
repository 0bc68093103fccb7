"""A name server that never answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

SILENT = "silent.test"


@contextlib.contextmanager
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names below ``silent.test`` are looked up until the context ends; the threads that did it, by name."""
    real, ends, threads = socket.getaddrinfo, threading.Event(), []

    def asked(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(SILENT):
            threads.append(threading.current_thread().name)
            ends.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    try:
        yield threads
    finally:
        ends.set()
