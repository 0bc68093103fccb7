"""What the compiler's child process runs: a module is compiled, and settings are checked by the plugin's schema."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from hookline_artifacts.child import bound_processor, serve_one
from hookline_artifacts.errors import FetchError, LoadError
from hookline_artifacts.schema import check_bounded
from hookline_runtime.guest import engine


def _work(request: dict[str, Any]) -> dict[str, str]:
    try:
        if request["wasm"] is not None:
            wasm = Path(request["wasm"]).read_bytes()
            if hashlib.sha256(wasm).hexdigest() != request["sha256"]:
                raise FetchError("the module in the store is not the one that was checked; it is fetched again")
            bound_processor(request["compile_s"])
            with os.fdopen(request["out"], "wb") as out:
                out.seek(0)
                out.truncate()
                engine.compile_into(wasm, out, fuel=request["fuel"])
        if request["schema"] is not None:
            check_bounded(request)
    except LoadError as error:
        return {"cause": error.cause, "message": str(error)}
    return {}


def child() -> None:
    """What the child process runs."""
    serve_one(_work)
