"""Whether the Secrets and ConfigMaps that a plugin names have the keys that it names, where they are in the same files.

Values are shown nowhere, and names of keys are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_api.outbound import references
from hookline_api.trust import documents as documents_of
from hookline_artifacts.judging.structure import meant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hookline_api.resources import WasmPlugin
    from hookline_cli.reading import Documents

_PULL: Final = (".dockerconfigjson", ".dockercfg")
_CA: Final = "ca.crt"


@dataclass(frozen=True, slots=True)
class _Named:
    """A key that a plugin names."""

    path: str
    kind: str
    name: str
    keys: tuple[str, ...]
    """Of which one must be there."""


async def missing(plugin: WasmPlugin, documents: Documents, *, whole: bool) -> list[str]:
    """What is not there, a sentence each that begins with a path.

    ``whole`` says that these files are all that there is, as for a sidecar with a folder; else an object that is in
    none of them may be in the cluster, and nothing is said of it.
    """
    problems = []
    for each in _named(plugin):
        if each.kind == "Secret":
            data = await documents.secret(plugin.metadata.namespace, each.name)
        else:
            data = await documents.config_map(plugin.metadata.namespace, each.name)
        if data is None and whole:
            problems.append(
                f"{each.path}: there is no {each.kind} '{each.name}' in the folder: put one with the key "
                f"'{each.keys[0]}' there"
            )
        elif data is not None and not any(key in data for key in each.keys):
            there = meant(each.keys[0], sorted(data)) if data else "; it has none: add it"
            if (each.kind, each.name, each.keys[0]) in documents.undecoded:
                there = " that is base64: encode its value, or write it into stringData as it is"
            problems.append(f"{each.path}: the {each.kind} '{each.name}' has no key '{each.keys[0]}'{there}")
    return problems


def _named(plugin: WasmPlugin) -> Iterator[_Named]:
    spec = plugin.spec
    for index, each in enumerate(spec.config_from):
        reference = each.secret_ref or each.config_map_ref
        if reference is not None:
            kind = "Secret" if each.secret_ref is not None else "ConfigMap"
            yield _Named(f"spec.configFrom[{index}].key", kind, reference.name, (each.key,))
    for path, secret in references(spec):
        yield _Named(f"spec.{path}", "Secret", secret.name, (secret.key,))
    if spec.source.oci is not None:
        for index, pull in enumerate(spec.source.oci.pull_secrets):
            yield _Named(f"spec.source.oci.pullSecrets[{index}]", "Secret", pull.name, _PULL)
        if spec.source.oci.ca_config_map is not None:
            yield _Named("spec.source.oci.caConfigMap", "ConfigMap", spec.source.oci.ca_config_map.name, (_CA,))
    if spec.source.config_map is not None:
        source = spec.source.config_map
        yield _Named("spec.source.configMap", "ConfigMap", source.name, (source.key,))
    if spec.verify is not None:
        for document in documents_of(spec.verify.signatures):
            given = document.secret or document.config_map
            if given is not None and given.key is not None:
                kind = "Secret" if document.secret is not None else "ConfigMap"
                yield _Named("spec.verify", kind, given.name, (given.key,))
