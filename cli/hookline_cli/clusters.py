"""The plugins, policies and what they refer to of a cluster, added to documents of files."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api.base import GROUP, PLURAL, POLICY_KIND, VERSION
from hookline_api.policies import POLICY_PLURAL
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli import reading

if TYPE_CHECKING:
    from hookline_cli.reading import Documents

_PAGE: Final = 500
_MAX_OBJECTS: Final = 50_000
_TIMEOUT_S: Final = 30


def add(documents: Documents, kubeconfig: Path, context: str | None, namespace: str) -> None:
    """Ask the API server. A policy of a file stands for the cluster's of the same name. Blocks.

    Keys of policies are read from Secrets and ConfigMaps of ``namespace``. Raises ConfigError and FetchError.
    """
    try:
        from kubernetes import client, config  # noqa: PLC0415 - a second, and only where a cluster is asked
    except ImportError:
        raise ConfigError(
            "--kubeconfig needs the Kubernetes client: pip install kubernetes, or save the cluster's resources with "
            "'kubectl get wasmplugins,plugintrustpolicies,namespaces -A -o yaml' and name that file"
        ) from None
    try:
        api = config.new_client_from_config(str(kubeconfig), context=context)
    except Exception as error:  # noqa: BLE001 - its own, yaml's and the system's
        raise ConfigError(f"--kubeconfig: {kubeconfig} cannot be used: {' '.join(str(error).split()):.200}") from None
    where = Path(f"cluster {api.configuration.host}")
    own = {each.document.metadata.name for each in documents.policies}
    for path in (f"/apis/{GROUP}/{VERSION}/{POLICY_PLURAL}", "/api/v1/namespaces", f"/apis/{GROUP}/{VERSION}/{PLURAL}"):
        for item in _items(api, path, client):
            if item["kind"] != POLICY_KIND or item["metadata"]["name"] not in own:
                reading.take(item, where, documents)
    for name in sorted(_named(documents)):
        _object(api, client, namespace, name, where, documents)


def _named(documents: Documents) -> set[tuple[str, str]]:
    """Kind and name of each object that a policy's keys are in."""
    from hookline_api.policies import PluginTrustPolicy  # noqa: PLC0415
    from hookline_api.trust import documents as documents_of  # noqa: PLC0415

    found = set()
    for each in documents.policies:
        policy = each.document
        if isinstance(policy, PluginTrustPolicy) and policy.spec.signatures is not None:
            for document in documents_of(policy.spec.signatures):
                if document.secret is not None:
                    found.add(("Secret", document.secret.name))
                elif document.config_map is not None:
                    found.add(("ConfigMap", document.config_map.name))
    return found


def _items(api: Any, path: str, client: Any) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found: list[dict[str, Any]] = []
    query = [("limit", str(_PAGE))]
    while True:
        page = _ask(api, client, path, query)
        kind = str(page.get("kind", "")).removesuffix("List")
        # The items of a list of Kubernetes' own kinds do not say what they are.
        found += [
            {"apiVersion": page.get("apiVersion"), "kind": kind, **each} for each in page.get("items") or () if each
        ]
        if len(found) > _MAX_OBJECTS:
            raise FetchError(f"{path} has more than {_MAX_OBJECTS} objects", transient=False)
        more = (page.get("metadata") or {}).get("continue")
        if not more:
            return found
        query = [("limit", str(_PAGE)), ("continue", more)]


def _object(api: Any, client: Any, namespace: str, name: tuple[str, str], where: Path, documents: Documents) -> None:
    kind, its = name
    plural = "secrets" if kind == "Secret" else "configmaps"
    try:
        found = _ask(api, client, f"/api/v1/namespaces/{namespace}/{plural}/{its}", [])
    except FetchError:
        return  # the policy says what it misses
    reading.take({**found, "apiVersion": "v1", "kind": kind}, where, documents)


def _ask(api: Any, client: Any, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - the client's own

    try:
        asked = api.param_serialize(
            "GET", path, query_params=query, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        answer = api.call_api(*asked, _request_timeout=_TIMEOUT_S)
        status, document = answer.status, answer.read()
        found = json.loads(document) if status == HTTPStatus.OK else None
    except client.ApiException as error:
        status, found = error.status, None
    except (HTTPError, OSError, ValueError) as error:
        raise FetchError(f"the API server does not answer: {' '.join(str(error).split()):.200}") from None
    if not isinstance(found, dict):
        raise FetchError(
            f"the API server answered {status} for {path}; check what the kubeconfig may list, and that Hookline's "
            "resources are installed",
            transient=False,
        )
    return found
