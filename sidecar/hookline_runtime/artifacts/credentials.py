"""Credentials: who we are to a registry, from pull secrets and from docker's own configuration.

Nothing is read before a registry asks. Pull secrets come first, in order, then the machine's docker
configuration: the registry's own helper, the file's entries, the general helper. A pull secret is somebody
else's text, so only its ``auths`` count: it can never make a helper run.

Formats: https://docs.docker.com/reference/cli/docker/login/ (config.json, credential helpers) and
https://kubernetes.io/docs/concepts/containers/images/#config-json (matching by path and by ``*``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import orjson

from hookline_runtime.artifacts.reference import DOCKER_HUB, DOCKER_HUB_HOSTS, Reference
from hookline_runtime.errors import FetchError

_log = logging.getLogger(__name__)

_MAX_CONFIG: Final = 1 << 20
_MAX_CANDIDATES: Final = 16
_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IDENTITY: Final = "<token>"  # a helper's user name where the secret is an identity token


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A user name with a password, or an identity token to change for access tokens."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Keychain:
    """Finds credentials for a reference."""

    documents: Sequence[Mapping[str, Any] | str]
    """Pull secrets: parsed or unparsed ``.dockerconfigjson``, in the order in which to try them."""
    docker_config: Path | None = None
    """The machine's ``config.json``; None is where docker has it."""
    helper_timeout: float = 20.0
    """Seconds for one credential helper."""

    async def find(self, reference: Reference) -> list[Credentials]:
        """Every candidate, the best first; empty where there is none. Raises FetchError for a broken file."""
        found = []
        for number, document in enumerate(self.documents, 1):
            found += _entries(_parsed(document, what=f"pull secret {number}"), reference)
        machine = _machine_config(self.docker_config)
        server = "https://index.docker.io/v1/" if reference.registry == DOCKER_HUB else reference.registry
        own_helper = _mapping(machine, "credHelpers").get(server) or _mapping(machine, "credHelpers").get(
            reference.registry
        )
        found += await _ask_helper(own_helper, server, self.helper_timeout)
        found += _entries(machine, reference)
        if own_helper is None:
            found += await _ask_helper(machine.get("credsStore"), server, self.helper_timeout)
        return found[:_MAX_CANDIDATES]


def _machine_config(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        folder = os.environ.get("DOCKER_CONFIG")
        path = (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise FetchError(f"the docker configuration {path} cannot be read: {error.strerror}", transient=False) from None
    return _parsed(text, what=f"the docker configuration {path}")


def _parsed(document: Mapping[str, Any] | str | bytes, *, what: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        with contextlib.suppress(orjson.JSONDecodeError):
            document = orjson.loads(document)
    if not isinstance(document, Mapping):
        raise FetchError(
            f"{what} is no docker config.json: a JSON object with the key auths was expected", transient=False
        )
    return document


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _entries(document: Mapping[str, Any], reference: Reference) -> list[Credentials]:
    """The matching entries of ``auths``, the most specific path first."""
    matching = []
    for key, entry in _mapping(document, "auths").items():
        host, _, path = re.sub(r"^https?://", "", str(key)).rstrip("/").partition("/")
        path = "" if path in {"v1", "v2"} else path
        host = DOCKER_HUB if host in DOCKER_HUB_HOSTS else host
        inside = not path or f"{reference.repository}/".startswith(f"{path}/")
        if inside and _host_matches(host, reference.registry) and (found := _entry(entry)):
            matching.append((len(path), found))
    matching.sort(key=lambda pair: -pair[0])
    return [found for _, found in matching]


def _host_matches(pattern: str, host: str) -> bool:
    ours, theirs = host.split("."), pattern.split(".")
    return len(ours) == len(theirs) and all(map(fnmatchcase, ours, theirs))


def _entry(entry: object) -> Credentials | None:
    if not isinstance(entry, Mapping):
        return None
    username, password = entry.get("username"), entry.get("password")
    if isinstance(packed := entry.get("auth"), str) and packed:
        with contextlib.suppress(binascii.Error, ValueError):
            username, _, password = base64.b64decode(packed).decode().partition(":")
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    if isinstance(username, str) and isinstance(password, str) and (username or password):
        return Credentials(username=username, password=password.strip("\0"))
    return None


async def _ask_helper(name: object, server: str, seconds: float) -> list[Credentials]:
    """What ``docker-credential-<name> get`` says: one candidate or none."""
    if not isinstance(name, str) or not name:
        return []
    program = f"docker-credential-{name}"
    if not _HELPER.fullmatch(name):
        raise FetchError(f"{name!r:.80} in the docker configuration is no credential helper", transient=False)
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise FetchError(
            f"the docker configuration asks for {program}, which cannot be run ({error.strerror}); "
            "install it or take it out",
            transient=False,
        ) from None
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate(server.encode())
    except TimeoutError:
        raise FetchError(f"{program} did not answer within {seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = orjson.loads(output) if process.returncode == 0 else None
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        _log.info("%s has no credentials for %s", program, server)  # its own words may hold a secret
        return []
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        return []
    if username == _IDENTITY:
        return [Credentials(identity_token=secret)]
    return [Credentials(username=username, password=secret)]
