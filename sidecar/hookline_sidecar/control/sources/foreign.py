"""What people put into a plugin folder that is not for Hookline: what it is, and what to write instead.

Each is told in one sentence, and a folder that was made for another program in one for all of it, since a list of
files that "need apiVersion and kind" helps nobody who has forty of them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from hookline_api.base import API_VERSION, KIND

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST: Final = f"apiVersion: {API_VERSION}, kind: {KIND}, metadata.name and spec.source"
SUFFIXES: Final = (".yaml", ".yml", ".json")
"""Of manifests, in any case."""
_HELIOSDB: Final = frozenset({"hooks", "permissions", "wasm_sha256", "min_memory", "max_memory"})
"""Fields beside ``name`` of HeliosDB-Proxy's descriptions: NAME.yaml, NAME.json, plugin.toml, manifest.json."""
_MAX_ENTRIES: Final = 2000
"""Names of a folder that are looked at."""
_SHOWN: Final = 3

_GROUPS: Final = {
    "extensions.istio.io": (
        "Istio's WasmPlugin, for modules of the proxy-wasm ABI; Hookline runs modules of its own guest ABI "
        f"(docs/author/guest-abi.md), and reads {API_VERSION} {KIND}"
    ),
    "networking.istio.io": f"Istio's, which configures Envoy; Hookline reads {API_VERSION} {KIND}",
    "gateway.envoyproxy.io": f"Envoy Gateway's, which configures Envoy; Hookline reads {API_VERSION} {KIND}",
    "configuration.konghq.com": f"Kong's; Hookline reads {API_VERSION} {KIND}",
    "policies.kubewarden.io": (
        "Kubewarden's, whose policies judge requests to the Kubernetes API; Hookline answers proxies, "
        f"and reads {API_VERSION} {KIND}"
    ),
}
_KUSTOMIZATION: Final = (
    "this is a kustomization, and Hookline does not apply it: write what it makes into the folder "
    "(kubectl kustomize DIR > plugins.yaml)"
)
_CHART: Final = (
    "this is a Helm chart, and Hookline does not render it: write what it makes into the folder "
    "(helm template DIR > plugins.yaml)"
)
_CHART_FILES: Final = frozenset({"chart.yaml", "values.yaml", "values.schema.json"})


def of_kind(api_version: str, kind: str) -> str | None:
    """What a Kubernetes document of another program is; None where nothing is known of it."""
    group = api_version.partition("/")[0]
    if group == "kustomize.config.k8s.io":
        return _KUSTOMIZATION
    return f"{api_version} {kind} is {_GROUPS[group]}" if group in _GROUPS else None


def is_kustomization(file: str) -> bool:
    """Whether a file of this name is one, whatever it says of its kind: kustomize itself asks no more."""
    return file in {"kustomization.yaml", "kustomization.yml"}


def of_file(file: str) -> str | None:
    """What a document without apiVersion or kind is by its file's name."""
    return _KUSTOMIZATION if is_kustomization(file) else _CHART if file == "Chart.yaml" else None


def is_description(document: dict[str, Any]) -> bool:
    """Whether a document describes a plugin as HeliosDB-Proxy's files do: a name, and something of a plugin."""
    return "apiVersion" not in document and "name" in document and not _HELIOSDB.isdisjoint(document)


def description_sentence() -> str:
    """What to write instead of such a document, where it stands alone."""
    return (
        "this describes a plugin for HeliosDB-Proxy and is not a Kubernetes document; write a manifest with "
        f"{_MANIFEST}.file.path (docs/author/heliosdb.md)"
    )


def is_chart(folder: Path) -> bool:
    """Whether the folder is a Helm chart."""
    return (folder / "Chart.yaml").is_file()


def is_of_chart(file: str) -> bool:
    """Whether a chart's folder has such a file for Helm alone."""
    return file.lower() in _CHART_FILES


def of_folder(folder: Path, *, described: bool) -> tuple[str, bool] | None:
    """What a folder is that holds no manifest, in one sentence; None where there is nothing to say.

    ``described`` says that documents were found for which ``is_description`` is true. And whether there is no doubt
    that it was meant to run plugins: then what they would guard must not be open.
    """
    names = _names(folder)
    modules = [name for name in names if name.lower().endswith((".wasm", ".tar.gz"))]
    beside = [name for name in names if name.endswith((".toml", ".sig", ".pub"))]
    within = [] if modules else _within(folder, names)
    if modules or within:
        found = modules or within
        shown = f"{', '.join(found[:_SHOWN])}{f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''}"
        theirs = described or bool(beside) or bool(within)
        what = f"these are plugins as HeliosDB-Proxy reads them ({shown})" if theirs else f"these are modules ({shown})"
        told = f"{what}, and no manifest says how to run them: write a YAML file for each with "
        return f"{told}{_MANIFEST}.file.path: {found[0]} (docs/author/heliosdb.md)", theirs
    if described:
        told = "these are descriptions of plugins as HeliosDB-Proxy reads them: write a YAML file for each with "
        return f"{told}{_MANIFEST} (docs/author/heliosdb.md)", True
    nested = next((name for name in names if _has_manifests(folder / name)), None)
    if nested is not None:
        return f"there is no manifest here, and subfolders are not read: give --plugins {folder / nested}", False
    if not names:
        return f"the folder is empty: no plugin runs until it holds a manifest with {_MANIFEST}", False
    if not any(name.lower().endswith(SUFFIXES) for name in names):
        told = f"no file here is read ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}): "
        return f"{told}the name of a manifest ends in {', '.join(SUFFIXES)}", False
    return None


def of_path(path: Path) -> str | None:
    """Why a path is not a plugin folder, and what to give instead; None where nothing better is known."""
    return f"it is a file, and a folder is read: give --plugins {path.parent}" if path.is_file() else None


def _names(folder: Path) -> list[str]:
    try:
        found = [path.name for path in itertools.islice(folder.iterdir(), _MAX_ENTRIES)]
    except OSError:
        return []
    return sorted(name.encode("utf-8", "replace").decode() for name in found if not name.startswith("."))


def _within(folder: Path, names: list[str]) -> list[str]:
    """Modules one folder down, beside a description of theirs: NAME/plugin.wasm and NAME/plugin.toml."""
    found = []
    for name in names[:_MAX_ENTRIES]:
        inner = _names(folder / name) if (folder / name).is_dir() else []
        if any(each.endswith((".toml", ".sig")) or each == "manifest.json" for each in inner):
            found += [f"{name}/{each}" for each in inner if each.endswith((".wasm", ".tar.gz"))]
    return found


def _has_manifests(folder: Path) -> bool:
    return folder.is_dir() and any(name.lower().endswith(SUFFIXES) for name in _names(folder))
