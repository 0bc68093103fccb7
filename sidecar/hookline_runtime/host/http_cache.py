"""A plugin's own responses, kept by HTTP's rules (https://www.rfc-editor.org/rfc/rfc9111).

It is a private cache in the memory of one worker: of one plugin, for itself. So ``private`` and requests with an
``Authorization`` are kept as others are, and ``s-maxage`` and ``proxy-revalidate`` are not for us. Three things are
simpler than the standard allows: nothing stale is served, no freshness is guessed for who states none, and only GET is
kept. What has a validator and is not fresh is kept to be revalidated.

DANGER: one plugin may ask on behalf of many people, with the token of each. A private cache of one person would not
have to tell them apart, and servers rely on that. So whatever a guest sends in headers of its own choosing tells them
apart here, whether or not the response varies by it.
"""

from __future__ import annotations

import email.utils
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_runtime.host.http_message import Response

MAX_BYTES: Final = 4 * 2**20
"""Of all that is kept."""
MAX_ENTRY: Final = MAX_BYTES // 4
MAX_ENTRIES: Final = 1024
MAX_VARIANTS: Final = 8
"""Of one URL, by what its responses vary."""
_OVERHEAD: Final = 1024
_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Those that are complete by themselves, RFC 9110, 15.1; a part (206) is not put together with others here."""
_MAX_SECONDS: Final = 2**31
_DIRECTIVE: Final = re.compile(
    r"""\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?\s*(?:,|$)"""
)
_MAX_CONTROL: Final = 4096
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_MAX_DATE: Final = 64
_CONDITIONS: Final = frozenset({
    "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range",
})  # fmt: skip
_SPEAKING: Final = _CONDITIONS | {"cache-control", "pragma"}
_IMPERSONAL: Final = frozenset({
    "accept", "accept-language", "cache-control", "pragma", "traceparent", "tracestate", "user-agent", "x-request-id",
})  # fmt: skip
"""Headers that say nothing of who asks. All others have to be the same."""
_LASTING: Final = frozenset({"cache-control", "expires", "etag", "last-modified"})
"""Without any of these, a response is not kept."""


def directives(value: str) -> dict[str, str]:
    """A ``Cache-Control``: names in lower case and their values; of a directive that is there twice, the first."""
    found: dict[str, str] = {}
    value, at = value[:_MAX_CONTROL], 0
    while at < len(value):
        match = _DIRECTIVE.match(value, at)
        if match is None:
            at = value.find(",", at) + 1 or len(value)  # what makes no sense is left out
            continue
        found.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3] or "")
        at = match.end()
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a request says of caches."""

    kept: bool
    """Whether its response may be kept, and one that is kept may be taken."""
    revalidate: bool
    max_age: float | None
    min_fresh: float
    only_kept: bool

    @classmethod
    def of(cls, method: str, headers: Mapping[str, str], *, has_body: bool) -> Wish:
        """Of a request."""
        if method != "GET" or has_body:
            return _NONE
        if headers.keys().isdisjoint(_SPEAKING):
            return _PLAIN
        asked = directives(headers.get("cache-control", ""))
        no_cache = "no-cache" in asked or ("cache-control" not in headers and "no-cache" in headers.get("pragma", ""))
        return cls(
            kept="no-store" not in asked and headers.keys().isdisjoint(_CONDITIONS),
            revalidate=no_cache,
            max_age=_seconds(asked["max-age"]) or 0 if "max-age" in asked else None,
            min_fresh=_seconds(asked.get("min-fresh", "")) or 0,
            only_kept="only-if-cached" in asked,
        )


_PLAIN: Final = Wish(kept=True, revalidate=False, max_age=None, min_fresh=0, only_kept=False)
_NONE: Final = Wish(kept=False, revalidate=False, max_age=None, min_fresh=0, only_kept=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One response that is kept."""

    response: Response
    asked_with: dict[str, str]
    """The headers of its request that may say who asked."""
    varies: tuple[tuple[str, str | None], ...]
    """More of them, that it depends on."""
    lifetime: float
    """Seconds for which it is fresh."""
    revalidate: bool
    """Whether it is never served unasked: ``no-cache``."""
    age: float
    """Seconds, when it came."""
    at: float
    """Seconds on the monotonic clock, when it came."""

    def answers(self, headers: Mapping[str, str]) -> bool:
        """Whether it is for a request with these headers."""
        return self.asked_with == _personal(headers) and all(headers.get(name) == value for name, value in self.varies)

    def age_at(self, now: float) -> float:
        """Seconds since the origin made or confirmed it, RFC 9111, 4.2.3."""
        return self.age + max(0.0, now - self.at)

    def is_fresh(self, wish: Wish, now: float) -> bool:
        """Whether it answers such a request, and nobody is asked."""
        age = self.age_at(now)
        return (
            not (self.revalidate or wish.revalidate)
            and self.lifetime - age > wish.min_fresh
            and (wish.max_age is None or age <= wish.max_age)
        )

    def conditions(self) -> dict[str, str]:
        """Headers that ask whether it still holds; none where it cannot be asked."""
        given = self.response.headers
        return {
            condition: given[validator]
            for condition, validator in (("if-none-match", "etag"), ("if-modified-since", "last-modified"))
            if validator in given
        }

    def served(self, now: float) -> Response:
        """As it is given to the guest."""
        headers = self.response.headers | {"age": str(int(self.age_at(now)))}
        return replace(self.response, headers=headers, from_cache=True)

    @property
    def size(self) -> int:
        """Bytes, about."""
        headers = sum(len(name) + len(value) for name, value in self.response.headers.items())
        asked = sum(len(name) + len(value) for name, value in self.asked_with.items())
        varies = sum(len(name) + len(value or "") for name, value in self.varies)
        return len(self.response.body) + headers + asked + varies + _OVERHEAD


class Moment(NamedTuple):
    """When a request was sent and its response came: seconds on the monotonic clock, and since 1970."""

    sent: float
    came: float
    wall: float


class ResponseCache:
    """What one plugin has fetched; the least recently used go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, list[Kept]] = OrderedDict()
        self._count = 0
        self.size = 0
        """Bytes, about."""

    def find(self, url: str, headers: Mapping[str, str]) -> Kept | None:
        """What is kept for a request, fresh or not."""
        variants = self._kept.get(url)
        if variants is None:
            return None
        self._kept.move_to_end(url)
        return next((each for each in variants if each.answers(headers)), None)

    def keep(self, url: str, headers: Mapping[str, str], response: Response, moment: Moment) -> None:
        """Keep a response, if its rules and its size allow that; what it replaces goes either way."""
        if url not in self._kept and response.headers.keys().isdisjoint(_LASTING):
            return
        self._drop(url, headers)
        kept = _kept(headers, response, moment)
        if kept is None or kept.size > MAX_ENTRY:
            return
        variants = self._kept.setdefault(url, [])
        variants.insert(0, kept)
        self._kept.move_to_end(url)
        self._add(kept, 1)
        while len(variants) > MAX_VARIANTS:
            self._add(variants.pop(), -1)
        while self.size > MAX_BYTES or self._count > MAX_ENTRIES:
            for each in self._kept.popitem(last=False)[1]:
                self._add(each, -1)

    def confirm(self, url: str, headers: Mapping[str, str], kept: Kept, answer: Response, moment: Moment) -> Kept:
        """After a 304: what is kept, with the headers that came; RFC 9111, 3.2 and 4.3.4."""
        came = {
            name: value for name, value in answer.headers.items() if name not in {"content-length", "content-encoding"}
        }
        before = {name: value for name, value in kept.response.headers.items() if name not in {"age", "date"}}
        response = replace(kept.response, headers=before | came)
        self.keep(url, headers, response, moment)
        return _kept(headers, response, moment) or replace(kept, response=response, age=0.0, at=moment.came)

    def forget(self, url: str) -> None:
        """Something was written there: RFC 9111, 4.4."""
        for each in self._kept.pop(url, ()):
            self._add(each, -1)

    def _drop(self, url: str, headers: Mapping[str, str]) -> None:
        variants = self._kept.get(url, [])
        for each in [one for one in variants if one.answers(headers)]:
            variants.remove(each)
            self._add(each, -1)
        if not variants:
            self._kept.pop(url, None)

    def _add(self, kept: Kept, times: int) -> None:
        self.size += times * kept.size
        self._count += times


def may_share(response: Response) -> bool:
    """Whether a response may answer those too who asked the same while it was on its way."""
    return response.headers.get("vary") != "*" and "no-store" not in directives(
        response.headers.get("cache-control", "")
    )


def _kept(headers: Mapping[str, str], response: Response, moment: Moment) -> Kept | None:
    """What to keep of a response; None for nothing. RFC 9111, 3."""
    given = response.headers
    if given.keys().isdisjoint(_LASTING):
        return None
    control = directives(given.get("cache-control", ""))
    varies = sorted({each.strip().lower() for each in given.get("vary", "").split(",")} - {""})
    if response.status not in _STATUSES or "no-store" in control or "*" in varies:
        return None
    date = _date(given.get("date", ""))
    if "max-age" in control:
        lifetime = _seconds(control["max-age"]) or 0.0
    else:
        expires = _date(given.get("expires", ""))
        lifetime = 0.0 if expires is None else max(0.0, expires - (moment.wall if date is None else date))
    if not lifetime and not ("etag" in given or "last-modified" in given):
        return None
    apparent = 0.0 if date is None else max(0.0, moment.wall - date)
    corrected = (_seconds(given.get("age", "")) or 0.0) + max(0.0, moment.came - moment.sent)
    return Kept(
        response=response,
        asked_with=_personal(headers),
        varies=tuple((name, headers.get(name)) for name in varies),
        lifetime=lifetime,
        revalidate="no-cache" in control,
        age=max(apparent, corrected),
        at=moment.came,
    )


def _personal(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _IMPERSONAL}


def _seconds(text: str) -> float | None:
    return min(float(text), _MAX_SECONDS) if _DIGITS.fullmatch(text) else None


def _date(text: str) -> float | None:
    """An HTTP date as seconds since 1970; None where it is none, such as ``0``."""
    if not 0 < len(text) <= _MAX_DATE:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
