"""Whether a plugin fits a module: all at once what ``resolve`` refuses one by one. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hookline_api.abi import permission_refusal, permission_warning, ungranted_imports
from hookline_api.resources import granted
from hookline_artifacts.entry import called_hooks, misfits, notes_on
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.judging.signers import Findings

if TYPE_CHECKING:
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo

_PLACED: Final = re.compile(r"spec\.[A-Za-z0-9.\[\]-]+: ")
"""A sentence that begins with a path."""


def judge_module(
    plugin: WasmPlugin, info: ModuleInfo, description: PluginDescription, *, sha256: str, asks: list[str]
) -> Findings:
    """What does not fit, and what is legal and may not be meant. ``asks`` are the permissions that the artifact asks.

    Nothing is said of its settings, whose schema is a stranger's (``schema_check``), and of its signatures.
    """
    said = Findings()
    spec = plugin.spec
    if spec.sha256 is not None and spec.sha256 != sha256:
        said.problems.append(
            f"spec.sha256: the module's sha256 is {sha256}, and {spec.sha256} is asked for: write the former there if "
            "this is the module that is meant"
        )
    hooks = list(dict.fromkeys(spec.hooks))
    try:
        hooks = hooks or list(called_hooks(plugin, description, info))
    except ConfigError as error:
        said.problems.append(f"spec.hooks: {error}")
    said.problems += [f"spec.{where}: {why}" for where, why in misfits(hooks, spec.limits, info)]
    ungranted = ungranted_imports(info.functions, granted(spec, asks))
    if ungranted and spec.permissions_policy == "Strict":
        said.problems.append(f"spec.permissions: {permission_refusal(ungranted)}")
    elif ungranted:
        said.warnings.append(f"spec.permissions: {permission_warning(ungranted)}")
    notes = (*description.notes, *notes_on(plugin, description, info))
    said.warnings += [each if _PLACED.match(each) else f"spec.source: {each}" for each in notes]
    return said
