"""Credentials: who we are to a registry, from pull secrets and from docker's own configuration.

Nothing is read before a registry asks, and no source before the one ahead of it was refused: pull secrets come
first, in order, then the machine's docker configuration: the registry's own helper, the file's entries, the
general helper. A source that cannot be used is a ``Gap``: it stops none of the others, and whoever asks tells it
where nothing else was good. A pull secret is somebody else's text, so only its ``auths`` count: it can never make
a helper run.

Formats: https://docs.docker.com/reference/cli/docker/login/ (config.json, credential helpers) and
https://kubernetes.io/docs/concepts/containers/images/#config-json (matching by path and by ``*``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import contextlib
import itertools
import os
import re
import signal
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api import json_cost
from hookline_artifacts.limits import MAX_VALUES, parse_foreign
from hookline_artifacts.reference import DOCKER_HUB, DOCKER_HUB_HOSTS, Reference
from hookline_artifacts.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_MAX_CONFIG: Final = 1 << 20
_MAX_ENTRIES: Final = 16
"""Entries of one document that are for this registry; the most specific count."""
MAX_SECRETS: Final = 16
"""Pull secrets that are read for one reference."""
_MAX_AUTHS: Final = 1000
"""Entries of one document that are looked at."""
_MAX_LABEL: Final = 63
"""Characters between two dots of a host; RFC 1035, 2.3.4."""
_MAX_KEY: Final = 1024
_MAX_ANSWER: Final = 1 << 16
_GRACE: Final = 5.0
"""Seconds for what was killed to be gone."""
_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IDENTITY: Final = "<token>"  # a helper's user name where the secret is an identity token
_HUB_SERVER: Final = "https://index.docker.io/v1/"
# https://github.com/docker/docker-credential-helpers, credentials/error.go: no failure, just nothing there
_NOT_FOUND: Final = b"credentials not found in native keychain"
_FIELDS: Final = ("auth", "username", "password", "identitytoken", "registrytoken")
_PACKED_JSON: Final = re.compile(rb"\s*e[w-z0-9+/][A-Za-z0-9+/]{4}")  # base64 of what begins with a brace
_SCHEME: Final = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_TOKEN: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A user name with a password, an identity token to change for access tokens, or an access token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    source: str = field(default="", compare=False)
    """Where they were found, for a person."""

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode(errors="surrogateescape")).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A source that was to have credentials, or an entry for this registry, that cannot be used."""

    why: str
    """For a person, without any secret: what, why, and what to do."""
    transient: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PullSecret:
    """A Secret that was named as a pull secret."""

    name: str
    namespace: str | None = None
    document: str | bytes | None = field(repr=False)
    """Its docker configuration, unparsed; None where there is none."""
    bare: bool = False
    """Whether it is a ``.dockercfg``: the entries themselves, without ``auths`` around them."""

    @property
    def label(self) -> str:
        """``the Secret 'NAMESPACE/NAME'``."""
        return f"the Secret '{self.namespace}/{self.name}'" if self.namespace else f"the Secret '{self.name}'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Keychain:
    """Finds credentials for a reference."""

    documents: Sequence[Mapping[str, Any] | str | PullSecret]
    """Pull secrets in the order in which to try them; also a ``.dockerconfigjson`` by itself, parsed or not."""
    docker_config: Path | None = None
    """The machine's ``config.json``; None is where docker has it."""
    helper_timeout: float = 20.0
    """Seconds for one credential helper."""

    async def find(self, reference: Reference) -> AsyncGenerator[Credentials | Gap, None]:
        """Every candidate, the best first, and what cannot be used. Each source is read when it is come to."""
        for number, document in enumerate(self.documents, 1):
            if number > MAX_SECRETS:
                where = "name the right one in spec.source.oci.pullSecrets"
                yield Gap(why=f"only the first {MAX_SECRETS} pull secrets are read: {where}")
                break
            for found in await in_thread(_of_secret, document, number, reference):
                yield found
        machine, what = await in_thread(_machine_config, self.docker_config)
        if isinstance(machine, Gap):
            yield machine
            return
        server = _HUB_SERVER if reference.registry == DOCKER_HUB else reference.registry
        own, helped = _own_helper(machine, reference), False
        if own:
            for found in await _ask_helper(own, server, self.helper_timeout):
                helped = helped or isinstance(found, Credentials)
                yield found
        general = machine.get("credsStore")
        for found in await in_thread(_entries, machine.get("auths"), reference, what, marks=bool(own or general)):
            yield found
        if general and not helped:
            for found in await _ask_helper(general, server, self.helper_timeout):
                yield found


def _of_secret(
    document: Mapping[str, Any] | str | PullSecret, number: int, reference: Reference
) -> list[Credentials | Gap]:
    """What a pull secret has for a registry."""
    what, bare = f"pull secret {number}", False
    text: object = document
    if isinstance(document, PullSecret):
        what, bare, text = document.label, document.bare, document.document
        if text is None:
            return [Gap(why=f"there is no {what.removeprefix('the ')} with the key .dockerconfigjson or .dockercfg")]
    found = _parsed(text, what=what)
    if isinstance(found, Gap):
        return [found]
    # Some write a config.json under the old key, and nothing but a registry's name can stand there otherwise.
    auths = found.get("auths") if not bare or isinstance(found.get("auths"), Mapping) else found
    if auths is None:
        return [Gap(why=f"{what} has no key auths, where registries stand with their credentials")]
    return _entries(auths, reference, what, marks=False)


def _machine_config(path: Path | None) -> tuple[Mapping[str, Any] | Gap, str]:
    if path is None:
        folder = os.environ.get("DOCKER_CONFIG")
        try:
            path = (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"
        except RuntimeError:  # neither HOME nor an entry in passwd: so docker has no configuration here
            return {}, ""
    what = f"the docker configuration {path}"
    try:
        with open(path, "rb", opener=at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Gap(why=f"{what} is not a regular file"), what
            text = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError:
        return {}, what
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is not a file name"
        return Gap(why=f"{what} cannot be read: {why}"), what
    if len(text) > _MAX_CONFIG:
        return Gap(why=f"{what} has more than {_MAX_CONFIG} bytes"), what
    return _parsed(text, what=what), what


def at_once(path: str, flags: int) -> int:
    """An ``opener`` that does not wait for ever at a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def _parsed(document: object, *, what: str) -> Mapping[str, Any] | Gap:
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


def _own_helper(machine: Mapping[str, Any], reference: Reference) -> object:
    """The helper that the configuration names for this registry."""
    helpers = machine.get("credHelpers")
    for key, name in helpers.items() if isinstance(helpers, Mapping) else ():
        host, _ = _place(str(key))
        if host == _normal(reference.registry):
            return name
    return None


def _entries(auths: object, reference: Reference, what: str, *, marks: bool) -> list[Credentials | Gap]:
    """What the matching entries of ``auths`` hold, the most specific path first.

    ``marks`` says that an empty entry is what docker leaves where a helper keeps the password, and old ones an email.
    """
    if auths is None:
        return []
    if not isinstance(auths, Mapping):
        return [Gap(why=f"auths in {what} is not a JSON object of registries")]
    matching: list[tuple[int, Credentials | Gap]] = []
    for key, entry in itertools.islice(auths.items(), _MAX_AUTHS):
        depth = _match(str(key), reference) if len(str(key)) <= _MAX_KEY else None
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


def _match(key: str, reference: Reference) -> int | None:
    """How much of the repository's path the key of an entry names; None where it is for something else."""
    host, path = _place(key)
    if not _host_matches(host, _normal(reference.registry)):
        return None
    # https://HOST/v1/ and /v2/ are addresses of APIs, but a repository may begin so as well
    for each in {path, re.sub("^v[12](?:/|$)", "", path)}:
        if not each or f"{reference.repository}/".startswith(f"{each}/"):
            return len(each)
    return None


def _place(key: str) -> tuple[str, str]:
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


async def _ask_helper(name: object, server: str, seconds: float) -> list[Credentials | Gap]:
    """What ``docker-credential-<name> get`` says."""
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        shown = f"{name!r:.80}" if isinstance(name, str) else "what is named"
        return [Gap(why=f"{shown} in the docker configuration is not the name of a credential helper")]
    program = f"docker-credential-{name}"
    try:
        code, output = await _run(program, server, seconds)
    except TimeoutError:
        return [Gap(why=f"{program} did not answer within {seconds:g} s", transient=True)]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return [
            Gap(
                why=f"the docker configuration asks for {program}, which cannot be run ({why}); "
                "install it or take it out"
            )
        ]
    if code and _NOT_FOUND in output:
        return []
    # Its own words may hold a secret, and are not repeated.
    by_hand = f"see what `echo {server} | {program} get` says"
    if code:
        return [Gap(why=f"{program} failed with {code}; {by_hand}")]
    try:
        answer = parse_foreign(output)
    except ValueError:
        answer = None
    username, secret = (answer.get("Username"), answer.get("Secret")) if isinstance(answer, dict) else (None, None)
    if not isinstance(username, str) or not isinstance(secret, str):
        return [Gap(why=f"{program} gave something else than a Username and a Secret; {by_hand}")]
    if not secret:
        return []
    return [
        Credentials(identity_token=secret, source=program)
        if username == _IDENTITY
        else Credentials(username=username, password=secret, source=program)
    ]


async def _run(program: str, server: str, seconds: float) -> tuple[int, bytes]:
    """How a helper ended, and the beginning of its output. Raises OSError and TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    output, ended = b"", False
    try:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):  # it does not want to know
                process.stdin.write(server.encode())
                await process.stdin.drain()
            process.stdin.close()
            while len(output) < _MAX_ANSWER and (chunk := await process.stdout.read(_MAX_ANSWER)):
                output += chunk
            if len(output) < _MAX_ANSWER:
                await process.wait()
                ended = True
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # the group: what it has started holds the pipe as well
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    while await process.stdout.read(_MAX_ANSWER):
                        pass
                    await process.wait()
    return (process.returncode or 0) if ended else 0, output
