"""Which collections a replica keeps copies of, and what of each object. Plugins: ``plugin_watch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hookline_api.base import API_VERSION
from hookline_api.revisions import REVISION_KIND, REVISION_PLURAL
from hookline_operator.cluster.kube import path
from hookline_operator.cluster.labels import SIDECAR_LABEL
from hookline_operator.cluster.plugin_watch import APPLY
from hookline_operator.cluster.pods import Pod
from hookline_operator.cluster.reflector import Reflector
from hookline_operator.cluster.revisions import OLD_API, PLUGIN_LABEL, Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hookline_operator.cluster.catalogue import Catalogue, Kind
    from hookline_operator.cluster.kube import Key, Kube, Object
    from hookline_operator.cluster.objects import ClusterObjects
    from hookline_operator.cluster.revisions import Seal
    from hookline_operator.cluster.sight import Sights


def reflectors(
    kube: Kube,
    catalogue: Catalogue,
    objects: ClusterObjects,
    seal: Seal,
    sights: Sights,
    *,
    namespaces: Sequence[str],
    migrate: bool,
) -> list[Reflector[Any]]:
    """Those that fill the catalogue; whoever asks for them runs them.

    ``namespaces`` that are watched, none for all. ``migrate``: whether an older operator's ``ControllerRevision``
    objects are read too.
    """
    made: list[Reflector[Any]] = []
    for namespace in namespaces or (None,):

        def add(api_version: str, plural: str, namespace: str | None = namespace, **rest: Any) -> None:
            made.append(Reflector(kube, path(api_version, plural, namespace), sight=sights.new(plural), **rest))

        add("v1", "pods", project=Pod.of, changed=catalogue.put_pod, selector=f"{SIDECAR_LABEL}=true")
        revisions: Any = {"changed": catalogue.put_revision, "selector": PLUGIN_LABEL}
        add(API_VERSION, REVISION_PLURAL, project=lambda found: Revision.of(found, seal),
            unknown=f"{REVISION_KIND}s: {APPLY}", **revisions)  # fmt: skip
        if migrate:
            add(*OLD_API, project=Revision.of_old, **revisions)
        # Names and versions of all; what is in them is read only where a plugin refers to it.
        add("v1", "secrets", project=_version, changed=_versions(objects, "Secret"), metadata_only=True)
        add("v1", "configmaps", project=_version, changed=_versions(objects, "ConfigMap"), metadata_only=True)
        add("v1", "serviceaccounts", project=_pull_secrets, changed=_default_account(catalogue))
    return made


def _version(found: Object) -> str:
    return str(found["metadata"]["resourceVersion"])


def _versions(objects: ClusterObjects, kind: Kind) -> Callable[[Key, str | None, str | None], None]:
    return lambda key, _old, new: objects.put_version(kind, key, new)


def _pull_secrets(found: Object) -> list[str] | None:
    """Of the account ``default``; None for every other."""
    if found["metadata"]["name"] != "default":
        return None
    return [each["name"] for each in found.get("imagePullSecrets") or [] if each.get("name")]


def _default_account(catalogue: Catalogue) -> Callable[[Key, list[str] | None, list[str] | None], None]:
    return lambda key, _old, new: catalogue.put_default_account(key[0], new or [])
