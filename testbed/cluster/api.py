"""The API server asked directly, for what tests do by the thousand: a kubectl costs a tenth of a second each time.

It does what kubectl does with the same request, and answers as ``kubectl --output=json``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from cluster.errors import ClusterError
from waiting import PATIENCE_S

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What discovery says of a resource."""

    version: str
    kind: str
    path: str
    plural: str
    namespaced: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words of a ``kubectl get``."""

    kind: str
    name: str = ""
    namespace: str = "default"
    selector: str = ""


def asked(words: Sequence[str]) -> Asked | None:
    """What these words ask for; None where kubectl alone knows."""
    plain: list[str] = []
    options = {"namespace": "default", "selector": ""}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        option = {"-n": "--namespace", "-l": "--selector"}.get(option, option)
        if option in {"--namespace", "--selector"}:
            options[option[2:]] = value if equals else next(rest, "")
        elif word.startswith("-") or set(word) & {",", "/"}:
            return None
        else:
            plain.append(word)
    if not 1 <= len(plain) <= 2:
        return None
    return Asked(kind=plain[0], name=plain[1] if len(plain) > 1 else "", **options)


class Api:
    """One API server; any thread may ask."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._address = (host, port)
        self._context = context
        # Connections on which nobody asks at the moment.
        self._idle: list[http.client.HTTPSConnection] = []
        self._kinds: dict[str, Kind] = {}

    def close(self) -> None:
        """End all connections."""
        while self._idle:
            self._idle.pop().close()

    def get(self, what: Asked) -> Any:
        """An object, or a List of those there are."""
        kind = self.kind(what.kind)
        path = self._path(kind, what.namespace, what.name)
        if what.name:
            return _bare(self.ask("GET", path))
        query = f"?{urlencode({'labelSelector': what.selector})}" if what.selector else ""
        items = self.ask("GET", path + query)["items"]
        named = [{"apiVersion": kind.version, "kind": kind.kind} | _bare(item) for item in items]
        return {"apiVersion": "v1", "kind": "List", "items": named, "metadata": {"resourceVersion": ""}}

    def apply(self, thing: dict[str, Any], *, namespace: str | None, manager: str) -> None:
        """Server-side apply, by force."""
        version, kind, metadata = thing["apiVersion"], thing["kind"], thing["metadata"]
        path = self._path(self.kind(kind, version), metadata.get("namespace", namespace), metadata["name"])
        query = urlencode({"fieldManager": manager, "force": "true", "fieldValidation": "Strict"})
        self.ask("PATCH", f"{path}?{query}", thing, content="application/apply-patch+yaml")

    def patch(self, what: Asked, change: Any, *, subresource: str = "") -> None:
        """Merge a change."""
        path = self._path(self.kind(what.kind), what.namespace, what.name)
        below = f"/{subresource}" if subresource else ""
        self.ask("PATCH", f"{path}{below}?fieldManager=kubectl-patch", change, content="application/merge-patch+json")

    def delete(self, what: Asked) -> None:
        """Ask for the end of an object, and return before it has come; one that is gone already is well."""
        with contextlib.suppress(NotFoundError):
            self.ask("DELETE", self._path(self.kind(what.kind), what.namespace, what.name), {})

    def kind(self, name: str, version: str | None = None) -> Kind:
        """What is known by a name: plural, singular, short, or as it stands in manifests.

        Raises:
            ClusterError: The API server serves none of that name.
        """
        key = f"{version or ''} {name.lower()}"
        if key not in self._kinds:
            self._discover()  # a definition may have come since
        if key not in self._kinds:
            raise ClusterError(f'error: the server doesn\'t have a resource type "{name}"')
        return self._kinds[key]

    def ask(self, method: str, path: str, body: Any = None, *, content: str = "application/json") -> Any:
        """The answer to a request.

        Raises:
            NotFoundError: There is nothing of this name.
            ClusterError: It was refused, or nobody answered.
        """
        head = {"Accept": "application/json", "Content-Type": content}
        raw = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status, data, again = self._exchange(method, path, raw, head)
            if status != http.client.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                break
            time.sleep(again)  # as the server asks
        if status < http.client.BAD_REQUEST:
            return json.loads(data)
        try:
            told = json.loads(data)
            said = f"Error from server ({told['reason']}): {told['message']}"
        except (ValueError, KeyError):
            said = f"Error from server: {data.decode(errors='replace')}"
        error = NotFoundError if status == http.client.NOT_FOUND else ClusterError
        raise error(f"{method} {path}: {said}")

    def _exchange(self, method: str, path: str, body: bytes | None, head: dict[str, str]) -> tuple[int, bytes, float]:
        """Status, body, and for how long to stay away. A connection that has ended meanwhile is not held against it."""
        while True:
            try:
                connection, used = self._idle.pop(), True
            except IndexError:
                connection, used = self._connection(), False
            try:
                connection.request(method, path, body, head)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used and isinstance(error, ConnectionError | http.client.BadStatusLine | ssl.SSLError):
                    continue
                raise ClusterError(f"{method} {path}: the API server does not answer: {error!r}") from error
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return answer.status, data, float(answer.headers["Retry-After"] or 1)

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._address, context=self._context, timeout=2 * PATIENCE_S)

    def _discover(self) -> None:
        """All names; of several with one name, the first is meant: the core's, then as the API server orders them."""
        found: dict[str, Kind] = {}
        for root in ("/api", "/apis"):
            _, data, _ = self._exchange("GET", root, None, {"Accept": _DISCOVERY})
            for group in json.loads(data)["items"]:
                named = group["metadata"].get("name", "")
                for each in group["versions"]:
                    version = f"{named}/{each['version']}" if named else each["version"]
                    for resource in each.get("resources", ()):
                        kind = Kind(
                            version=version, kind=resource["responseKind"]["kind"], path=f"{root}/{version}",
                            plural=resource["resource"], namespaced=resource["scope"] == "Namespaced",
                        )  # fmt: skip
                        names = {kind.kind, kind.plural, resource["singularResource"], *resource.get("shortNames", ())}
                        for name in names - {""}:
                            found.setdefault(f" {name.lower()}", kind)
                            found.setdefault(f"{version} {name.lower()}", kind)
        self._kinds = found

    def _path(self, kind: Kind, namespace: str | None, name: str) -> str:
        where = f"/namespaces/{namespace or 'default'}" if kind.namespaced else ""
        return f"{kind.path}{where}/{kind.plural}" + (f"/{quote(name)}" if name else "")


class NotFoundError(ClusterError):
    """There is nothing of this name."""


def _bare(thing: dict[str, Any]) -> dict[str, Any]:
    """As kubectl shows it: who wrote which field is left out."""
    thing["metadata"].pop("managedFields", None)
    return thing
