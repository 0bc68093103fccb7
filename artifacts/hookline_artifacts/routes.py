"""Asking in order: the mirrors of a reference, and its own registry last.

A mirror carries bytes and says nothing about them. The name that people, policies and signatures see is the
reference's own; whatever a mirror gives must have the digest that was asked for. Only what a *tag* means is believed
of whoever answers first, which is a mirror where there is one.

What was had from a mirror is known to have been had there, and nowhere else: each repository is a place of its own for
the store. So nobody gets by a mirror what it would not give them itself, and what one has had with a password for the
registry another has to ask for, there or at a mirror. Passwords are looked up by the host that is asked, and are sent
to no other.

A mirror that fails costs a bounded time, and then the next is asked. One that does not answer at all is passed over
for a while, so that thousands of plugins do not each wait for it; where nobody else has answered, it is asked all the
same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from hookline_artifacts.errors import FetchError, LoadError, VerifyError, WrongBytesError
from hookline_artifacts.net.transport import AwayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_artifacts.net.body import Body
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.registry import Repository

_AWAY_S: Final = 30.0
"""For so long a mirror that did not answer is passed over."""
_MAX_AWAY: Final = 256
_ASK_S: Final = 20.0
"""For everything but the bytes of a module, from one mirror."""
_MAX_WHY: Final = 240

T = TypeVar("T")


class Absences:
    """Who did not answer lately. Bounded: the oldest goes first."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, ...], float] = {}

    def note(self, key: tuple[str, ...]) -> None:
        """It did not answer now."""
        self._since.pop(key, None)
        if len(self._since) >= _MAX_AWAY:
            del self._since[next(iter(self._since))]
        self._since[key] = time.monotonic()

    def forget(self, key: tuple[str, ...]) -> None:
        """It has answered."""
        self._since.pop(key, None)

    def seconds(self, key: tuple[str, ...]) -> float | None:
        """How long ago that was; None where it is asked."""
        since = self._since.get(key)
        ago = time.monotonic() - since if since is not None else _AWAY_S
        return ago if ago < _AWAY_S else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One repository that may be asked."""

    place: str
    """By which the store knows what was had there."""
    shown: str
    """``registry/repository``."""
    is_mirror: bool
    key: tuple[str, ...]
    """By which its absence is remembered."""
    repository: Repository
    brief: Repository
    """The same, asked once and with less patience."""


class Routes:
    """One reference's repositories as one: a ``Repository`` that asks them in order."""

    def __init__(self, ways: Sequence[Way], absences: Absences, *, what: str, seconds: float) -> None:
        """``seconds`` are for all that is downloaded of it; each mirror gets its share."""
        self.ways = tuple(ways)
        self._absences = absences
        self._what = what
        self._share = seconds / len(self.ways)
        self._last: Way | None = None
        """Who answered last: what belongs together is asked there first."""
        self.unasked: FetchError | None = None
        """Why somebody could not be asked for what another did not have."""

    def own(self) -> Routes | None:
        """The reference's own registry alone, asked briefly; None where it is that already, or is away."""
        way = self.ways[-1]
        if len(self.ways) == 1 or self._absences.seconds(way.key) is not None:
            return None
        brief = replace(way, repository=way.brief)
        return Routes([brief], self._absences, what=self._what, seconds=self._share)

    def pass_over(self) -> None:
        """Nobody answers there: it is not asked again for a while where others can be."""
        self._absences.note(self.ways[-1].key)

    async def resolve(self) -> str:
        """The digest that the reference means now, of the first that answers."""

        async def ask(way: Way) -> str:
            try:
                return await way.repository.resolve()
            except VerifyError as error:
                if len(self.ways) == 1:
                    raise
                raise WrongBytesError(str(error)) from None  # nobody else has to mean the same

        return await self._first(ask, seconds=_ASK_S)

    async def manifest(self, name: str, *, most: int | None = None) -> bytes:
        """The manifest of a digest, checked, or of a tag."""
        return await self._first(lambda way: way.repository.manifest(name, most=most), seconds=_ASK_S)

    async def tagged(self, tag: str, *, most: int | None = None) -> bytes | None:
        """The manifest of a tag that need not be there, of the first that has it."""
        return await self._first_that_has(lambda repository: repository.tagged(tag, most=most))

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """What refers to a digest, of the first that knows of any."""
        return await self._first_that_has(lambda repository: repository.referrers(digest)) or ()

    async def blob(self, digest: str, into: Body, *, whole: bool = False) -> None:
        """Put a blob into ``into``, which the caller verifies; who gives other bytes counts as one that failed.

        ``whole``: it may be as large as a module, and each has the time for one.
        """

        async def ask(way: Way) -> None:
            into.restart()
            await way.repository.blob(digest, into)
            if len(self.ways) > 1:
                into.verify(digest)

        await self._first(ask, seconds=self._share if whole else _ASK_S)

    async def pull(self, ask: Callable[[Way], Awaitable[T]]) -> T:
        """What ``ask`` makes of one repository alone; of the next where that one fails."""
        return await self._first(ask, seconds=self._share)

    async def _first(self, ask: Callable[[Way], Awaitable[T]], *, seconds: float) -> T:
        if len(self.ways) == 1:
            return await ask(self.ways[0])
        failed: dict[str, LoadError] = {}
        later: list[Way] = []
        for way in self._order():
            ago = self._absences.seconds(way.key) if way.is_mirror else None
            if ago is not None:
                failed[way.shown] = FetchError(f"it did not answer {ago:.0f} s ago, and is passed over for a while")
                later.append(way)
                continue
            try:
                return await self._ask(way, ask, seconds)
            except (FetchError, WrongBytesError) as error:
                failed[way.shown] = error
        if any(isinstance(each, AwayError) for each in failed.values()):
            for way in later:
                try:
                    return await self._ask(way, ask, seconds)
                except (FetchError, WrongBytesError) as error:
                    failed[way.shown] = error
        raise self._together(failed)

    async def _first_that_has(self, ask: Callable[[Repository], Awaitable[T]]) -> T | None:
        """As ``_first``; but who has nothing is no answer, and after one of those nobody is waited for long."""
        if len(self.ways) == 1:
            return await ask(self.ways[0].repository)
        failed: dict[str, LoadError] = {}
        has_nothing = False
        for way in self._order():
            ago = self._absences.seconds(way.key) if way.is_mirror or has_nothing else None
            if ago is not None:
                failed[way.shown] = FetchError(f"it did not answer {ago:.0f} s ago, and is passed over for a while")
                continue
            repository = way.brief if has_nothing else way.repository
            try:
                found = await self._ask(way, lambda _, it=repository: ask(it), _ASK_S, brief=has_nothing)  # type: ignore[misc]
            except (FetchError, WrongBytesError) as error:
                failed[way.shown] = error
                continue
            if found:
                return found
            has_nothing = True
        if not has_nothing:
            raise self._together(failed)
        if failed:
            together = self._together(failed)
            self.unasked = together if isinstance(together, FetchError) else self.unasked
        return None

    async def _ask(self, way: Way, ask: Callable[[Way], Awaitable[T]], seconds: float, *, brief: bool = False) -> T:
        bound = seconds if way.is_mirror or brief else None  # the reference's own has the caller's time
        try:
            async with asyncio.timeout(bound) as timeout:
                answer = await ask(way)
        except AwayError:
            self._absences.note(way.key)
            raise
        except TimeoutError:
            if not timeout.expired():
                raise
            self._absences.note(way.key)
            raise AwayError(f"{way.shown} did not give it within {bound:g} s") from None
        self._absences.forget(way.key)
        self._last = way
        return answer

    def _order(self) -> list[Way]:
        last = self._last
        return list(self.ways) if last is None else [last, *(each for each in self.ways if each is not last)]

    def _together(self, failed: dict[str, LoadError]) -> LoadError:
        """One error of all: what the reference's own registry said, and why each mirror did not help."""
        own = failed.get(self.ways[-1].shown)
        mirrors = [
            f"{way.shown} ({str(failed[way.shown])[:_MAX_WHY]})"
            for way in self.ways
            if way.is_mirror and way.shown in failed
        ]
        sentence = f"{own or self._what}; of its mirrors, none gave it: {'; '.join(mirrors)}" if mirrors else str(own)
        if isinstance(own, VerifyError):
            return WrongBytesError(sentence)
        transient = any(isinstance(each, FetchError) and each.transient for each in failed.values())
        pause = own.retry_after if isinstance(own, FetchError) else None
        return FetchError(sentence, transient=transient, retry_after=pause)
