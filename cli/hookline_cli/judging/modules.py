"""A plugin against its module: what it imports, exports and asks for, and the settings by its own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_api.resources import LocalSource
from hookline_artifacts.entry import lay_over, own_config
from hookline_artifacts.errors import ConfigError, FetchError, LoadError
from hookline_artifacts.judging.modules import judge_module
from hookline_artifacts.resolve import fetch, told
from hookline_artifacts.schema_check import check_apart

if TYPE_CHECKING:
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.login.access import RegistryAccess
    from hookline_cli.judging.documents import Judged
    from hookline_cli.reading import Documents


def is_here(plugin: WasmPlugin, documents: Documents) -> bool:
    """Whether the module can be had without asking anybody."""
    source = plugin.spec.source
    if source.oci is not None:
        return source.oci.reference.startswith("oci-layout:")
    if source.config_map is not None:
        return any(name == source.config_map.name for _, name in documents.config_maps)
    return source.http is None


def _is_file(plugin: WasmPlugin) -> bool:
    source = plugin.spec.source
    return isinstance(source, LocalSource) and source.file is not None


async def judge(
    plugin: WasmPlugin, judged: Judged, documents: Documents, fetcher: Fetcher, access: RegistryAccess
) -> str | None:
    """Add what does not fit. Returns why the module cannot be had, for now; None where it was had."""
    try:
        _, artifact = await fetch(
            plugin, fetcher, documents, digest=None, base=judged.piece.file.parent.absolute(), access=access
        )
        info, description, believed = await told(artifact, whole=plugin.spec.verify is None)
    except FetchError as error:
        if not _is_file(plugin):
            return str(error)
        judged.say("problem", "module", f"spec.source: {error}")
        return None
    except LoadError as error:
        judged.say("problem", "module", f"spec.source: {error}")
        return None
    asks = sorted({*believed.permissions, *info.permissions})
    found = judge_module(plugin, info, description, sha256=artifact.sha256, asks=asks)
    for each in found.problems:
        judged.say("problem", "module", each)
    for each in found.warnings:
        judged.say("warning", "module", each)
    if description.config_schema is not None:
        await _settings(plugin, judged, documents, description.config_schema)
    return None


async def _settings(plugin: WasmPlugin, judged: Judged, documents: Documents, schema: dict[str, object]) -> None:
    """The settings by the module's own schema, with those that come from objects of the same files."""
    try:
        config = own_config(plugin)
        secret_paths = []
        for each in plugin.spec.config_from:
            reference = each.secret_ref or each.config_map_ref
            find = documents.secret if each.secret_ref is not None else documents.config_map
            data = await find(plugin.metadata.namespace, reference.name) if reference is not None else None
            if data is None or each.key not in data:
                judged.say(
                    "note", "module",
                    f"spec.config: is not checked by the module's schema, since '{each.path}' comes from an object "
                    "that is not in these files",
                )  # fmt: skip
                return
            secret_paths += [each.path] if each.secret_ref is not None else []
            lay_over(config, each.path, data[each.key])
        await check_apart(config, schema, secret_paths=secret_paths)
    except ConfigError as error:
        text = str(error)
        judged.say("problem", "module", f"spec.{text}" if text.startswith("config") else f"spec.config: {text}")
