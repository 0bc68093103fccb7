"""A resource's settings, with what other objects have for them. Whoever reads these needs no registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_api.outbound import references
from hookline_artifacts.entry import Settings, check_credentials, credential, lay_over, own_config, whole_config
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.objects import without_key

if TYPE_CHECKING:
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.objects import Objects


async def settings(plugin: WasmPlugin, objects: Objects) -> Settings:
    """``config`` with ``configFrom`` laid over it, and the values of Secrets that sources name. Raises ConfigError.

    Also FetchError, where ``objects`` cannot be asked.
    """
    laid = own_config(plugin)
    secret_paths: list[str] = []
    for each in plugin.spec.config_from:
        if each.secret_ref is not None:
            kind, name = "Secret", each.secret_ref.name
            data = await objects.secret(plugin.metadata.namespace, name)
            secret_paths.append(each.path)
        else:
            assert each.config_map_ref is not None  # noqa: S101 - the model has exactly one
            kind, name = "ConfigMap", each.config_map_ref.name
            data = await objects.config_map(plugin.metadata.namespace, name)
        if data is None or each.key not in data:
            raise ConfigError(f"configFrom '{each.path}': {without_key(kind, name, each.key, data)}")
        lay_over(laid, each.path, data[each.key])
    credentials = await _credentials(plugin, objects)
    return Settings(config=whole_config(laid), secret_paths=secret_paths, credentials=credentials)


async def _credentials(plugin: WasmPlugin, objects: Objects) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, reference in references(plugin.spec):
        if reference.id not in found:
            data = await objects.secret(plugin.metadata.namespace, reference.name)
            found[reference.id] = credential(path, reference.name, reference.key, data)
    check_credentials(found)
    return found
