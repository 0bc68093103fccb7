"""What the child process of a self-test runs: one request as JSON on standard input, one answer on standard output.

Each case is asked of a fresh plugin, one after the other, up to the first that does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api.bundle import BundlePlugin
from hookline_api.cases import SECTION, CasesError, read_cases
from hookline_artifacts.child import bound_processor, serve_one
from hookline_artifacts.errors import FetchError, LoadError, VerifyError
from hookline_artifacts.module.annotate import custom_sections
from hookline_runtime.guest import border
from hookline_runtime.guest.engine import Ticker, load_compiled
from hookline_runtime.guest.sealed import Inherited
from hookline_runtime.plugin.stats import StatsTable
from hookline_runtime.runtime import PrepareError
from hookline_runtime.trial.cases import try_case
from hookline_runtime.trial.self_test import MEMORY, NEEDS_MEMORY
from hookline_runtime.trial.trial import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.cases import Case

_CAUSE: Final = "verify"


async def _ask(
    cases: list[Case], entry: BundlePlugin, wasm: bytes, modules: Mapping[bool, Path | Inherited]
) -> str | None:
    """Why a case does not hold; None where all do. Raises LoadError where the machine is at fault.

    ``modules`` has the compiled form that counts fuel, and the one that does not, as far as the cases need them.
    """
    stats = StatsTable()
    for case in cases:
        try:
            module = modules[_counts_fuel(case, entry)]
            problem = (await try_case(case, entry, wasm, module, stats=stats)).problem
        except PrepareError as error:
            if isinstance(error.reason, FetchError):
                raise error.reason from None
            problem = f"the module does not load with its settings: {error.reason}"
        if problem is not None:
            return f"its own case {case.name!r} does not hold: {problem}"
    return None


def _work(request: dict[str, Any]) -> dict[str, str]:
    # What a guest logs would end in the parent's memory.
    logging.disable(logging.NOTSET)
    logging.getLogger("hookline").addHandler(logging.NullHandler())
    logging.getLogger("hookline").propagate = False
    wasm = Path(request["wasm"]).read_bytes()
    if hashlib.sha256(wasm).hexdigest() != request["sha256"]:
        message = "the module in the store is not the one that was checked; it is fetched again"
        return {"cause": FetchError.cause, "message": message}
    entry = BundlePlugin.model_validate(request["entry"])
    tempfile.tempdir = request["folder"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            cases = read_cases(custom_sections(wasm).get(SECTION, b""))
            needed = {_counts_fuel(case, entry) for case in cases}
            modules = {fuel: _compiled(request, entry, wasm, Path(folder), fuel=fuel) for fuel in needed}
            bound_processor(request["seconds"])
            border.be_patient()
            Ticker().start()  # one for all cases; it ends with the process
            told = asyncio.run(_ask(cases, entry, wasm, modules))
        except CasesError as error:
            return {"cause": _CAUSE, "message": f"its own cases cannot be read: {error}"}
        except LoadError as error:
            return {"cause": error.cause, "message": str(error)}
    if told is None:
        return {"told": f"its {len(cases)} own cases hold" if len(cases) > 1 else "its own case holds"}
    most = max((case.limits or entry.limits).memory for case in cases)
    granted = resource.getrlimit(resource.RLIMIT_DATA)[0]
    starved = granted != resource.RLIM_INFINITY and granted < MEMORY + most
    return {"cause": NEEDS_MEMORY if starved else _CAUSE, "message": told}


def _counts_fuel(case: Case, entry: BundlePlugin) -> bool:
    return (case.limits or entry.limits).fuel is not None


def _compiled(
    request: dict[str, Any], entry: BundlePlugin, wasm: bytes, folder: Path, *, fuel: bool
) -> Path | Inherited:
    """What is lent, where it loads and is of this form; else it is compiled here.

    Where what is lent is damaged, whoever loads it next tells so.
    """
    lent: Path | Inherited | None = None
    if fuel != (entry.limits.fuel is not None):
        pass
    elif request["descriptor"] is not None:
        lent = Inherited(request["descriptor"], request["size"])
    elif request["compiled"] is not None:
        lent = Path(request["compiled"])
    if lent is not None:
        with contextlib.suppress(VerifyError):
            load_compiled(lent, fuel=fuel)
            return lent
    return compiled(wasm, folder, fuel=fuel)


def child() -> None:
    """What the child process runs."""
    serve_one(_work, reserves=True)
