"""Logging in to a registry: its challenges are answered, candidate after candidate.

A registry is asked without credentials first; its challenge decides between Basic and Bearer. Every candidate that
the keychain has is tried in order, and nobody at all last. What could not be tried is reported only where all of that
was refused. A token is asked for with the scope of this one repository, whatever scope the challenge names. A login
that is kept from an earlier request, and refused, is forgotten, and the request made without it.

Protocol: https://distribution.github.io/distribution/spec/auth/token/ .
"""

from __future__ import annotations

import io
import time
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.login.access import advice_without_login
from hookline_artifacts.login.challenges import Challenge, parse_challenges
from hookline_artifacts.login.credentials import Credentials, Gap
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.transport import OF_A_TOKEN_SERVER, REFUSALS, StatusError, Transport
from hookline_artifacts.net.urls import foreign, shown, with_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from yarl import URL

    from hookline_artifacts.login.access import RegistryAccess
    from hookline_artifacts.login.keychain import Keychain
    from hookline_artifacts.reference import Reference

_MAX_TOKEN_ANSWER: Final = 1 << 18
_MAX_TOKENS: Final = 256
_TOKEN_SECONDS: Final = 60  # where the server does not say; the token specification's default
_BASIC_SECONDS: Final = 300
_LEEWAY: Final = 10.0
_LONGEST_TOKEN: Final = 3600
_MAX_GAPS: Final = 4
"""Gaps, and sources of credentials, that one sentence names."""
_MAX_CANDIDATES: Final = 16
_HELPER_PAUSE: Final = 60.0
"""Seconds until a helper that did not answer is asked again: longer than the pauses within one fetch."""


class _NoTokenError(FetchError):
    """A token server said yes, and gave none: one that sends people to a login page, say."""


class Tokens:
    """``Authorization`` values that worked, until they expire. Bounded: the oldest go first."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], tuple[str, float]] = {}

    def get(self, key: tuple[str, ...]) -> str | None:
        """The value, while it is good."""
        value, expires = self._values.get(key, ("", 0.0))
        return value if time.monotonic() < expires else None

    def put(self, key: tuple[str, ...], value: str, *, seconds: float) -> None:
        """Keep a value for a little less than ``seconds``."""
        self._values.pop(key, None)
        if len(self._values) >= _MAX_TOKENS:
            del self._values[next(iter(self._values))]
        self._values[key] = (value, time.monotonic() + max(seconds - _LEEWAY, 1.0))

    def drop(self, key: tuple[str, ...], value: str) -> None:
        """Forget a value that was refused, unless somebody has put a newer one there."""
        if self._values.get(key, ("", 0.0))[0] == value:
            del self._values[key]


class Login:
    """Answers one registry's challenges for one repository, candidate after candidate.

    ``actions`` are what is to be done there, as a token's scope has it: ``pull`` or ``pull,push``.
    """

    def __init__(
        self,
        reference: Reference,
        base: URL,
        access: RegistryAccess,
        keychain: Keychain,
        transport: Transport,
        tokens: Tokens,
        *,
        actions: str = "pull",
    ) -> None:
        self._reference = reference
        self._base = base
        self._ca_pem = access.ca_pem
        self._keychain = keychain
        self._transport = transport
        self._tokens = tokens
        self._actions = actions
        self._key = (str(base), access.fingerprint, actions)
        self._candidates: AsyncIterator[Credentials | Gap | None] | None = None
        """Those that were not tried yet; None before the first."""
        self._current: Credentials | None = None
        self._access = access
        self._refused: list[str] = []
        """Where the credentials were found that were refused."""
        self._gaps: list[Gap] = []
        self._odd: FetchError | None = None
        """What a token server answered, where that was neither a token nor a refusal."""
        self._new: str | None = None
        """A value that was made for the next request."""
        self._sent: str | None = None
        self._kept = False
        """Whether what was sent is from an earlier request."""
        self._bare = False
        """Whether the next request goes without any."""
        self._offers: list[Challenge] = []

    def next_header(self) -> str | None:
        """Part of ``Authorizer``."""
        self._sent = None if self._bare else self._new or self._tokens.get(self._key)
        self._kept = self._sent is not None and self._new is None
        self._new, self._bare = None, False
        return self._sent

    async def answer_challenge(self, status: int, challenges: list[str]) -> bool:
        """Part of ``Authorizer``. Raises FetchError where nobody is left to try."""
        self._offers = parse_challenges(", ".join(challenges)) or self._offers
        if self._sent is not None:
            self._tokens.drop(self._key, self._sent)
        elif status == HTTPStatus.BAD_REQUEST:
            return False  # of the request itself
        if self._kept:
            # It may have ended, or never have been good for this: no word against whoever it was made for.
            self._kept, self._bare = False, True
            return True
        if not self._offers:
            return False
        left = True
        if self._sent is not None or self._candidates is None:
            left = await self._next()
        while left:
            try:
                value, seconds = await self._authorization(self._current)
            except (StatusError, _NoTokenError) as error:
                if error.transient:
                    raise
                if not isinstance(error, StatusError) or error.status not in REFUSALS:
                    self._odd = error
                left = await self._next()
                continue
            self._tokens.put(self._key, value, seconds=seconds)
            self._new = value
            return True
        raise self._failure(status) if self._odd is None or self._gaps else self._odd

    async def _next(self) -> bool:
        """Go on to the next candidate; what cannot be used on the way is kept for who has to be told."""
        if self._candidates is None:
            self._candidates, self._refused, self._gaps = _then_nobody(self._keychain, self._reference), [], []
            self._odd = None
        else:
            self._refused += [self._current.source] if self._current is not None else []
        async for found in self._candidates:
            if not isinstance(found, Gap):
                self._current = found
                return True
            self._gaps.append(found)
        self._candidates = None  # who asks again begins again
        return False

    def _failure(self, status: int) -> FetchError:
        refused, others, advice = (
            (
                f"the credentials that were found ({_counted(self._refused)})",
                "others",
                f"check that one of them may {self._actions.rpartition(',')[2]} it",
            )
            if self._refused
            else (
                "to serve it without credentials",
                "those that were given",
                advice_without_login(self._access, self._reference),
            )
        )
        if self._gaps:
            more = f"; and {len(self._gaps) - _MAX_GAPS} more" if len(self._gaps) > _MAX_GAPS else ""
            advice = f"{others} could not be used: {'; '.join(gap.why for gap in self._gaps[:_MAX_GAPS])}{more}"
        transient = any(gap.transient for gap in self._gaps)
        return FetchError(
            f"{self._reference.registry} answered {status} for {self._reference} and refuses {refused}; {advice}",
            transient=transient,
            retry_after=_HELPER_PAUSE if transient else None,
        )

    async def _authorization(self, credentials: Credentials | None) -> tuple[str, float]:
        """A value for ``Authorization`` and for how long; StatusError where the token server refuses."""
        basic = any(scheme == "basic" for scheme, _ in self._offers)
        for scheme, parameters in self._offers:
            if scheme == "bearer" and credentials is not None and credentials.registry_token is not None:
                return f"Bearer {credentials.registry_token}", _BASIC_SECONDS
            if scheme == "bearer" and (not basic or self._realm(parameters) is not None):
                return await self._token(credentials, parameters)
        if basic:
            if credentials is None or credentials.identity_token is not None or credentials.registry_token is not None:
                raise StatusError("no password for Basic", status=401, transient=False, retry_after=None)
            return credentials.basic, _BASIC_SECONDS
        raise FetchError(
            f"{self._reference.registry} asks for a login that is neither Basic nor Bearer",
            transient=False,
        )

    async def _token(self, credentials: Credentials | None, parameters: Mapping[str, str]) -> tuple[str, float]:
        realm = self._realm(parameters)
        if realm is None:
            raise FetchError(
                f"{self._reference.registry} names no usable token server; its realm must be an https URL",
                transient=False,
            )
        service = parameters.get("service", "")
        asked = {"service": service, "scope": f"repository:{self._reference.repository}:{self._actions}"}
        body = Body(io.BytesIO(), what=f"a token for {self._reference} from {shown(realm)}", cap=_MAX_TOKEN_ANSWER)
        if credentials is not None and credentials.identity_token is not None:
            asked |= {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "client_id": "hookline",
            }
            await self._transport.request(
                "POST", realm, what=body.what, into=body, ca_pem=self._ca_pem, form=asked, advice=OF_A_TOKEN_SERVER
            )
        else:
            await self._transport.request(
                "GET",
                with_query(realm, asked),
                what=body.what,
                into=body,
                auth=_Fixed(credentials.basic) if credentials is not None else None,
                ca_pem=self._ca_pem,
                advice=OF_A_TOKEN_SERVER,
            )
        return self._read_token(body)

    def _realm(self, parameters: Mapping[str, str]) -> URL | None:
        """Where the token server is; None where no usable one is named."""
        try:
            realm = foreign(parameters.get("realm", ""))
        except ValueError:
            return None
        return realm if realm.raw_user is None and realm.scheme in {"https", self._base.scheme} else None

    def _read_token(self, body: Body) -> tuple[str, float]:
        body.file.seek(0)
        try:
            answer = parse_foreign(body.file.read())
        except ValueError:
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
            raise _NoTokenError(f"{body.what} holds no token; check the registry's token server", transient=False)
        seconds = answer.get("expires_in")
        if not isinstance(seconds, int) or seconds <= 0:
            seconds = _TOKEN_SECONDS
        return f"Bearer {token}", min(seconds, _LONGEST_TOKEN)


async def _then_nobody(keychain: Keychain, reference: Reference) -> AsyncIterator[Credentials | Gap | None]:
    """What a keychain has, each once, and nobody's credentials last."""
    seen: set[Credentials] = set()
    async with aclosing(keychain.find(reference)) as candidates:
        async for found in candidates:
            if isinstance(found, Credentials):
                if found in seen:
                    continue
                if len(seen) == _MAX_CANDIDATES:
                    yield Gap(why=f"more than {_MAX_CANDIDATES} are not tried")
                    break
                seen.add(found)
            yield found
    yield None


class _Fixed:
    """One header, whatever the server says."""

    def __init__(self, value: str) -> None:
        self._value = value

    def next_header(self) -> str:
        return self._value

    async def answer_challenge(self, status: int, challenges: list[str]) -> bool:  # noqa: ARG002 - the protocol's names
        return False


def _counted(sources: list[str]) -> str:
    """How many, and where they were found."""
    names = list(dict.fromkeys(each for each in sources if each))
    more = f" and {len(names) - _MAX_GAPS} more" if len(names) > _MAX_GAPS else ""
    return f"{len(sources)}{': ' if names else ''}{', '.join(names[:_MAX_GAPS])}{more}"
