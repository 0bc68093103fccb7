"""What a docker configuration or a pull secret holds for one registry. Pure.

Formats: https://docs.docker.com/reference/cli/docker/login/ (config.json) and
https://kubernetes.io/docs/concepts/containers/images/#config-json (matching by path and by ``*``).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hookline_api import json_cost
from hookline_artifacts.limits import MAX_VALUES, parse_foreign
from hookline_artifacts.login.credentials import Credentials, Gap, PullSecret
from hookline_artifacts.reference import DOCKER_HUB, DOCKER_HUB_HOSTS

if TYPE_CHECKING:
    from hookline_artifacts.reference import Reference

_MAX_ENTRIES: Final = 16
"""Entries of one document that are for this registry; the most specific count."""
_MAX_AUTHS: Final = 1000
"""Entries of one document that are looked at."""
_MAX_LABEL: Final = 63
"""Characters between two dots of a host; RFC 1035, 2.3.4."""
_MAX_KEY: Final = 1024
_FIELDS: Final = ("auth", "username", "password", "identitytoken", "registrytoken")
_PACKED_JSON: Final = re.compile(rb"\s*e[w-z0-9+/][A-Za-z0-9+/]{4}")  # base64 of what begins with a brace
_SCHEME: Final = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_TOKEN: Final = re.compile(r"[!-~]+")


def read_secret(
    document: Mapping[str, Any] | str | PullSecret, number: int, reference: Reference
) -> list[Credentials | Gap]:
    """What a pull secret has for a registry."""
    what, bare = f"pull secret {number}", False
    text: object = document
    if isinstance(document, PullSecret):
        what, bare, text = document.label, document.bare, document.document
        if text is None:
            there = f"; it has {document.keys}" if document.keys else ""
            wanted = "with the key .dockerconfigjson or .dockercfg"
            return [Gap(why=f"there is no {what.removeprefix('the ')} {wanted}{there}")]
    found = parse(text, what=what)
    if isinstance(found, Gap):
        return [found]
    # Some write a config.json under the old key, and nothing but a registry's name can stand there otherwise.
    auths = found.get("auths") if not bare or isinstance(found.get("auths"), Mapping) else found
    if auths is None:
        return [Gap(why=f"{what} has no key auths, where registries stand with their credentials")]
    return read_entries(auths, reference, what, marks=False)


def parse(document: object, *, what: str) -> Mapping[str, Any] | Gap:
    """The JSON object of a document, parsed already or not. ``what`` names it in sentences."""
    if isinstance(document, str | bytes):
        try:
            data = document.encode() if isinstance(document, str) else document
            if _PACKED_JSON.match(data):
                return Gap(
                    why=f"{what} is in base64 once too often; give stringData the JSON itself, or data one layer"
                )
            document = parse_foreign(data.removeprefix(codecs.BOM_UTF8))  # which PowerShell writes
        except json_cost.CostError:
            return Gap(why=f"{what} has more than {MAX_VALUES} values, and is not read; keep what is asked for here")
        except ValueError:
            return Gap(why=f"{what} is not JSON; docker login writes what is expected there")
    if not isinstance(document, Mapping):
        return Gap(why=f"{what} is not a docker config.json: a JSON object with the key auths was expected")
    return document


def own_helper(machine: Mapping[str, Any], reference: Reference) -> object:
    """The helper that the configuration names for this registry."""
    helpers = machine.get("credHelpers")
    for key, name in helpers.items() if isinstance(helpers, Mapping) else ():
        host, _ = _host_and_path(str(key))
        if host == _normal(reference.registry):
            return name
    return None


def read_entries(auths: object, reference: Reference, what: str, *, marks: bool) -> list[Credentials | Gap]:
    """What the matching entries of ``auths`` hold, the most specific path first.

    ``marks`` says that an empty entry is what docker leaves where a helper keeps the password, and old ones an email.
    """
    if auths is None:
        return []
    if not isinstance(auths, Mapping):
        return [Gap(why=f"auths in {what} is not a JSON object of registries")]
    matching: list[tuple[int, Credentials | Gap]] = []
    for key, entry in itertools.islice(auths.items(), _MAX_AUTHS):
        depth = _depth(str(key), reference) if len(str(key)) <= _MAX_KEY else None
        if depth is None or (marks and _is_mark(entry)):
            continue
        held = _entry(entry)
        gap = f"the entry {str(key)!r:.120} of {what} cannot be used: {held}"
        matching.append((depth, replace(held, source=what) if isinstance(held, Credentials) else Gap(why=gap)))
    matching.sort(key=lambda pair: -pair[0])
    kept = [found for _, found in matching[:_MAX_ENTRIES]]
    if len(auths) > _MAX_AUTHS:
        kept.append(Gap(why=f"{what} has {len(auths)} entries, and only {_MAX_AUTHS} are looked at"))
    return kept


def _is_mark(entry: object) -> bool:
    return isinstance(entry, Mapping) and not any(entry.get(each) for each in _FIELDS)


def _depth(key: str, reference: Reference) -> int | None:
    """How much of the repository's path the key of an entry names; None where it is for something else."""
    host, path = _host_and_path(key)
    if not _host_matches(host, _normal(reference.registry)):
        return None
    # https://HOST/v1/ and /v2/ are addresses of APIs, but a repository may begin so as well
    for each in {path, re.sub("^v[12](?:/|$)", "", path)}:
        if not each or f"{reference.repository}/".startswith(f"{each}/"):
            return len(each)
    return None


def _host_and_path(key: str) -> tuple[str, str]:
    """The host and the path that a key names."""
    key = key.strip()
    scheme = _SCHEME.match(key)
    host, _, path = key[scheme.end() if scheme is not None else 0 :].strip().partition("/")
    return _normal(host), path.strip("/")


def _normal(host: str) -> str:
    """A host as it is compared: in lower case, without HTTPS' own port, and Docker Hub by one of its names."""
    host = host.lower().removesuffix(":443")
    return DOCKER_HUB if host in DOCKER_HUB_HOSTS else host


def _host_matches(pattern: str, host: str) -> bool:
    if pattern == host:
        return True
    (theirs, their_port), (ours, our_port) = (_split_port(each) for each in (pattern, host))
    labels, wanted = ours.split("."), theirs.split(".")
    if their_port != our_port or len(labels) != len(wanted) or "[" in theirs:
        return False
    return all(map(_label_matches, wanted, labels))


def _label_matches(pattern: str, label: str) -> bool:
    """Whether what stands between two dots is meant: ``*`` is for any characters of it, ``?`` for one.

    Kubernetes has Go's filepath.Match here: https://kubernetes.io/docs/concepts/containers/images/#config-json . The
    last ``*`` takes as few characters as it can, and none before it is ever tried again.
    """
    if pattern == label:
        return True
    if len(label) > _MAX_LABEL or len(pattern.replace("*", "")) > _MAX_LABEL:
        return False
    at = star = here = 0
    has_star = False
    while here < len(label):
        if at < len(pattern) and pattern[at] == "*":
            has_star, star, at, begin = True, at + 1, at + 1, here
        elif at < len(pattern) and pattern[at] in ("?", label[here]):
            at, here = at + 1, here + 1
        elif has_star:
            begin += 1
            at, here = star, begin
        else:
            return False
    return not pattern[at:].strip("*")


def _split_port(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and "]" not in port else (host, "")


def _entry(entry: object) -> Credentials | str:
    """What an entry holds, or why that cannot be used."""
    if not isinstance(entry, Mapping):
        return "it is not a JSON object"
    identity, registry = entry.get("identitytoken"), entry.get("registrytoken")
    if isinstance(identity, str) and identity:
        return Credentials(identity_token=identity)
    if isinstance(registry, str) and _TOKEN.fullmatch(registry):
        return Credentials(registry_token=registry)
    found = _unpacked(entry["auth"]) if entry.get("auth") not in (None, "") else None
    username, password = entry.get("username"), entry.get("password")
    if not isinstance(found, Credentials) and isinstance(username, str) and isinstance(password, str):
        found = _login(username, password) if username or password else found
    return found or _what_is_wrong(entry)


def _what_is_wrong(entry: Mapping[str, Any]) -> str:
    """Of an entry that holds neither a token nor a user with a password."""
    for key in ("username", "password"):
        if entry.get(key) is not None and not isinstance(entry[key], str):
            return f"its {key} is not text"
    for key in ("identitytoken", "registrytoken"):
        if entry.get(key) not in (None, ""):
            return f"its {key} is not a token"
    if entry.get("username"):
        return "it has a username and no password"
    if entry.get("password"):
        return "it has a password and no username"
    return "it is empty, and auth or username and password were expected"


def _unpacked(packed: object) -> Credentials | str:
    """The ``USER:PASSWORD`` of an ``auth``, in base64 of either alphabet, with or without its padding."""
    if not isinstance(packed, str):
        return "its auth is not text"
    text = _SPACE.sub("", packed).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return "its auth is not base64"
    # A password is bytes, in whatever encoding its owner's machine has.
    username, colon, password = data.decode(errors="surrogateescape").partition(":")
    if not colon:
        return "its auth is not the base64 of USER:PASSWORD, there is no colon in it"
    if not username and not password:
        return "its auth has neither a user nor a password"
    return _login(username, password)


def _login(username: str, password: str) -> Credentials | str:
    # docker pads with NUL; a line feed is what `echo` left behind, and RFC 7617 allows none in a password
    found = Credentials(username=username, password=password.strip("\0").rstrip("\r\n"))
    try:
        _ = found.basic
    except UnicodeEncodeError:
        return "its user or password is not text"
    return found
