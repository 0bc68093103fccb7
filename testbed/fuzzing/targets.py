"""The parsers: bytes in, nothing out but the error that each may raise.

A parser is bounded by steps, too: lines of Python that run, per byte of input. What happens within one call into C is
not seen here (a regular expression, zlib): tests/artifacts counts that in instructions, and fuzzing by its time limit.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

from hookline_api import json_cost, quantities
from hookline_artifacts import reference
from hookline_artifacts.documents import kubernetes_yaml
from hookline_artifacts.errors import ConfigError, FetchError, VerifyError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login import credentials, docker_config
from hookline_artifacts.login.challenges import parse_challenges
from hookline_artifacts.module import describe
from hookline_artifacts.module.inspection import inspect_module
from hookline_artifacts.module.memory_map import read_memory_map
from hookline_artifacts.net import urls
from hookline_artifacts.net.transport import retry_after
from hookline_artifacts.package import layouts
from hookline_artifacts.package.search import Search
from hookline_artifacts.trust import cosign, keys
from hookline_artifacts.trust.evidence import Evidence, Form, Signature
from hookline_runtime.host import egress, http_cache, http_message
from hookline_runtime.host.backends.resp import GarbageError, Parser, Reply
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.heads import read_head
from hookline_sidecar.hooks.original import PROXIES

_LIMITS: Final = FetchLimits(unpacked=1 << 20, entries=1000)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What methods and names of headers are: RFC 9110, 5.6.2."""
_LONGEST: Final = 300
"""Characters of an error's sentence that quotes one thing, however long that was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One parser."""

    name: str
    run: Callable[[bytes], None]
    """Raises what no caller of the parser is ready for, and AssertionError for an answer that cannot be."""
    steps: int
    """Lines of Python for each byte of input, at the most."""
    base: int = 3000
    """… and for an input of no bytes."""
    kept: int = 0
    """Bytes at the beginning of an input that say what kind it is, and are not repeated where it is made longer."""
    max_len: int = 4096
    """Bytes of an input while fuzzing: less than a parser takes, so that inputs are many."""


_all: Final[dict[str, Target]] = {}


def targets() -> dict[str, Target]:
    """All, by name."""
    return dict(_all)


def _target(name: str, *, steps: int, **more: int) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    def keep(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        _all[name] = Target(name=name, run=run, steps=steps, **more)
        return run

    return keep


def steps_of(work: Callable[[], object]) -> int:
    """Lines of Python that one call runs, its own and those of all that it calls."""
    count = 0

    def trace(_frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def longer(target: Target, data: bytes, times: int) -> bytes:
    """An input, repeated."""
    return data[: target.kept] + data[target.kept :] * times


def check(target: Target, data: bytes) -> None:
    """Run it, and count. Raises AssertionError where it took too many steps, and what the parser should not raise."""
    found = steps_of(lambda: target.run(data))
    most = target.base + target.steps * len(data)
    assert found <= most, f"{target.name}: {found} steps for {len(data)} bytes, and {most} are allowed"


def _short(error: Exception, pieces: int) -> None:
    """An error's sentence quotes so many things at the most, and is cut where it is made."""
    assert len(str(error)) <= pieces * _LONGEST


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@_target("heads", steps=20, max_len=8192)
def _heads(data: bytes) -> None:
    head = read_head(data)
    if head is not None:
        assert head.target.startswith("/")
        assert all(name == name.lower() and "\n" not in value for name, value in head.headers.items())
        assert 0 <= head.length < 10**15


@_target("replies", steps=60)
def _replies(data: bytes) -> None:
    """What a Valkey server sends, at once and in pieces: the same replies, or garbage in both."""

    def read(size: int) -> list[Reply] | None:
        parser, found = Parser(), []
        try:
            for at in range(0, len(data), size):
                found += parser.feed(data[at : at + size])
        except GarbageError:
            return None
        return found

    assert read(len(data) or 1) == read(7)


@_target("challenges", steps=30, max_len=16_384)
def _challenges(data: bytes) -> None:
    for scheme, parameters in parse_challenges(data.decode("latin-1")):
        assert scheme == scheme.lower()
        assert all(isinstance(value, str) for value in parameters.values())


@_target("descriptions", steps=200, base=10_000, kept=1)
def _descriptions(data: bytes) -> None:
    """The first byte says which file it is; a description that cannot be read is a note, never an error."""
    if not data:
        return
    names = describe.PACKED_MANIFESTS
    read = describe.PluginDescription.from_packed({names[data[0] % len(names)]: data[1:]})
    assert read is not None
    assert all(len(note) <= _LONGEST for note in read.notes)


@_target("globs", steps=60)
def _globs(data: bytes) -> None:
    """A registry, then patterns that may be for it, a line each."""
    host, _, patterns = _text(data).partition("\n")
    with contextlib.suppress(FetchError):
        asked = reference.parse(f"{host}/a/b:c")
        if isinstance(asked, reference.Reference):
            for pattern in patterns.split("\n"):
                docker_config._depth(pattern, asked)  # noqa: SLF001 - the comparison itself


@_target("pull-secrets", steps=120, base=10_000)
def _pull_secrets(data: bytes) -> None:
    asked = reference.parse("registry.example.com/a/b:c")
    assert isinstance(asked, reference.Reference)
    secret = credentials.PullSecret(name="s", document=data, bare=bool(data[:1] == b" "))
    for found in docker_config.read_secret(secret, 1, asked):
        if isinstance(found, credentials.Gap):
            assert len(found.why) <= 2 * _LONGEST
        else:
            assert found.basic.isprintable()


@_target("json", steps=20)
def _json(data: bytes) -> None:
    """What is counted before parsing is never less than what parsing makes."""
    import orjson  # noqa: PLC0415 - the judge, which is compiled, and so not instrumented

    said = json_cost.values(data)
    depth = json_cost.depth(data, at_most=64)
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    made, deepest = _made(parsed)
    assert made <= said, f"{made} values and names, and {said} were said"
    assert deepest <= max(depth, 64), f"{deepest} deep, and {depth} was said"


def _made(parsed: object) -> tuple[int, int]:
    """Values and names, and how deep."""
    count, deepest, left = 0, 0, [(parsed, 0)]
    while left:
        value, depth = left.pop()
        count, deepest = count + 1, max(deepest, depth)
        if isinstance(value, dict):
            count += len(value)
            left += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            left += [(each, depth + 1) for each in value]
    return count, deepest


@_target("archives", steps=200, base=20_000)
def _archives(data: bytes) -> None:
    file, out = io.BytesIO(data), io.BytesIO()
    search = Search(limits=_LIMITS)
    try:
        search.look(file)
        search.take(out, layout="raw")
    except VerifyError as error:
        _short(error, 2)
    else:
        assert out.getvalue().startswith(b"\0asm")


@_target("modules", steps=120, base=5000)
def _modules(data: bytes) -> None:
    """What is inspected, and then where it says that its memory is what."""
    module = b"\0asm\x01\0\0\0" + data
    try:
        inspect_module(module)
    except VerifyError as error:
        _short(error, 3)
    try:
        for begin, end in read_memory_map(module).own(static=True):
            assert 0 <= begin <= end
    except VerifyError as error:
        _short(error, 3)


@_target("components", steps=120, base=5000)
def _components(data: bytes) -> None:
    """What crosses a component's border, and the modules and components in it."""
    try:
        inspect_module(b"\0asm\x0d\0\x01\0" + data)
    except VerifyError as error:
        _short(error, 3)


@_target("manifests", steps=200, base=10_000)
def _manifests(data: bytes) -> None:
    try:
        manifest = layouts.read_manifest(data)
        if manifest.entries is not None:
            layouts.choose(manifest.entries)
        else:
            layouts.module_layers(manifest)
    except VerifyError as error:
        _short(error, 3)


@_target("signatures", steps=200, base=10_000)
def _signatures(data: bytes) -> None:
    """What anybody may put beside an artifact, in every form, the file in which it travels, and a key."""
    digest = "sha256:" + "a" * 64
    try:
        assert all(reference.DIGEST.fullmatch(each.digest) for each in layouts.read_list(data))
    except VerifyError as error:
        _short(error, 3)
    forms = [Signature(form=form, payload=data, signature=data) for form in get_args(Form)]
    found = cosign.Signatures(forms, frozenset({digest}))
    assert len(found) + found.malformed == len(forms)
    assert found.about <= len(found)
    assert all(len(hint) < _LONGEST for hint in found.hints)
    try:
        read = Evidence.read(data)
        assert Evidence.read(read.write()) == read
    except VerifyError as error:
        _short(error, 1)
    try:
        key = keys.read_pem(_text(data), what="the key")
        assert not list(found.by(key))
    except ConfigError as error:
        _short(error, 1)


@_target("addresses", steps=100)
def _addresses(data: bytes) -> None:
    """References, URLs that others wrote, and when to ask again."""
    text = _text(data)
    try:
        reference.parse(text)
    except FetchError as error:
        _short(error, 2)
    with contextlib.suppress(ValueError):
        base = urls.foreign("https://registry.example.com/a/b?c")
        url = urls.foreign(text, base=base)
        assert url.scheme in {"http", "https"}
        assert url.raw_host
        shown = urls.shown(urls.with_query(url, {"scope": "x"}))
        assert "?" not in shown
    pause = retry_after(text, now=0.0)
    assert pause is None or 0 <= pause <= 3600


@_target("requests", steps=20, max_len=8192)
def _requests(data: bytes) -> None:
    """What a guest hands to `http_fetch`."""
    try:
        request = http_message.read_request(data)
    except http_message.HttpError as error:
        _short(error, 1)
        return
    assert all(name == name.lower() and "\n" not in value for name, value in request.headers.items())
    assert "host" not in request.headers
    assert len(request.body or b"") <= http_message.MAX_BODY


@_target("egress", steps=60)
def _egress(data: bytes) -> None:
    """URLs of guests and of redirects, and what servers say of caches."""
    text = _text(data)
    here = egress.read_url("https://example.com/v1/x?y")
    for read in (egress.read_url, lambda location: egress.follow(here, location)):
        try:
            target = read(text)
        except http_message.HttpError as error:
            _short(error, 2)
            continue
        assert egress.read_url(target.url) == target
        assert not {".", ".."} & set(target.path.split("/"))
    assert all(name == name.lower() for name in http_cache.directives(text))


@_target("quantities", steps=20)
def _quantities(data: bytes) -> None:
    for parse in (quantities.parse_size, quantities.parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(_text(data)) >= 0


@_target("auth", steps=120, base=10_000)
def _auth(data: bytes) -> None:
    """Lines: which proxy and the request line, then headers."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    method, _, target = lines[0][1:].partition(" ")
    telling = list(PROXIES.values())[ord(lines[0][:1] or "a") % len(PROXIES)]
    given = [(name, value) for name, _, value in (line.partition(":") for line in lines[1:])]
    if not target.isascii() or not all(map(_TOKEN.fullmatch, (method, *(name for name, _ in given)))):
        return  # the server has refused it
    question = Question.of_request(telling, method, target, given)
    if question.reply is not None:
        assert question.reply.status >= 400


@_target("manifest-folders", steps=300, base=10_000, max_len=2048)
def _manifest_folders(data: bytes) -> None:
    """YAML and JSON as kubectl reads them."""
    with contextlib.suppress(kubernetes_yaml.UnreadableError):
        kubernetes_yaml.read(data)
