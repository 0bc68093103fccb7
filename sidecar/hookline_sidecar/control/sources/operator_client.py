"""HTTP to the operator: over TLS, with the pod's token, to no other place.

Token and authority are files that change under us (a projected token lives for an hour, a CA is rotated), so both
are read for every request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import aiohttp
from yarl import URL

from hookline_api.distribution import MAX_TOKEN, AuthorityMessage
from hookline_artifacts.net import failures
from hookline_artifacts.net.certificates import plain_pem
from hookline_artifacts.net.transport import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from hookline_sidecar.control.authorities import Authorities
    from hookline_sidecar.settings import OperatorSettings

INJECTED: Final = Path("/var/run/secrets/hookline.dev")
"""Where the operator's webhook has kubelet put what is in the pod's annotation, and keep it as that is."""
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 20.0
_CLOSE_S: Final = 1.0
_MAX_FILE: Final = 256 * 1024
_ADVICE: Final = {
    401: "it does not accept this pod's token; check --operator-token, the token's audience and that the pod lives",
    403: "this pod is not allowed to; check that the operator watches its namespace",
    404: "there is no Hookline operator at that address; check --operator",
    429: "it has too much to do; it is asked again later",
    503: "it cannot serve now; it is asked again later",
}


class OperatorError(Exception):
    """The operator cannot be asked, or says no: one sentence."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds that it asks to wait."""


class OperatorClient:
    """Asks one operator. Of one event loop; connections are opened on first use."""

    def __init__(self, settings: OperatorSettings, authorities: Authorities | None = None) -> None:
        """``authorities`` are those that it told of, and they count beside the file's."""
        self._settings = settings
        self._authorities = authorities
        self._url = URL(settings.url)
        self._lazy_session: aiohttp.ClientSession | None = None
        self._trust: tuple[str | None, str, ssl.SSLContext] | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._lazy_session is not None:
            await self._lazy_session.close()

    async def open(self, path: str, *, heartbeat: float, max_message: int) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket. Raises OperatorError."""
        tls, headers = await asyncio.to_thread(self._identity)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._session().ws_connect(
                    self._url.with_path(path),
                    headers=headers,
                    ssl=tls,
                    heartbeat=heartbeat,
                    max_msg_size=max_message,
                    compress=0,  # what is inflated here would be a bomb
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _refuse(error, self._remedy)

    @asynccontextmanager
    async def get(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of 200 or 206, to be read. Raises OperatorError, also for what goes wrong while it is read."""
        tls, identity = await asyncio.to_thread(self._identity)
        try:
            async with self._session().get(
                self._url.with_path(path),
                headers={**headers, **identity, "Accept-Encoding": "identity"},
                ssl=tls,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_ANSWER_S),
            ) as response:
                if response.status not in {200, 206}:
                    raise _status(response.status, response.headers)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _refuse(error, self._remedy)

    @property
    def _remedy(self) -> str:
        """What to do where its certificate is not trusted."""
        ca = self._settings.ca
        if ca is None or ca.parent != INJECTED:
            return "check --operator-ca and the host's name"
        return (
            "whom to trust is in the pod's annotation hookline.dev/operator-ca: delete the pod, and it is made anew, "
            'or annotate it: kubectl annotate --overwrite pod NAME hookline.dev/operator-ca="$(kubectl get configmap '
            "hookline-ca -n NAMESPACE-OF-THE-OPERATOR -o jsonpath='{.data.ca\\.crt}')\"; "
            "where it is in a ConfigMap, renew that"
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._lazy_session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_no_redirect)
            self._lazy_session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "hookline-sidecar"},
                trace_configs=[trace],
            )
        return self._lazy_session

    def _identity(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        token = _file(self._settings.token, "--operator-token").strip()
        if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise OperatorError(f"--operator-token {self._settings.token} holds no token")
        pem = plain_pem(_file(self._settings.ca, "--operator-ca")) if self._settings.ca is not None else None
        told = self._authorities.beside(pem) if self._authorities is not None and pem is not None else ""
        if self._trust is None or self._trust[:2] != (pem, told):
            try:
                if pem == "":  # ssl would take it for "the system's authorities"
                    raise ValueError("it is empty")  # noqa: TRY301 - the same as what is none
                # With authorities of its own, the system's are not trusted.
                context = ssl.create_default_context(cadata=pem)
            except (ssl.SSLError, ValueError):
                raise OperatorError(f"--operator-ca {self._settings.ca} holds no PEM certificate") from None
            if told:
                context.load_verify_locations(cadata=told)
            self._trust = pem, told, context
        return self._trust[2], {"Authorization": f"Bearer {token}"}

    def trust(self, message: AuthorityMessage) -> bool:
        """Trust these authorities too, from the next connection on; whether they are others than before.

        Only for what came over a connection of this client, whose certificate it has verified. Raises ValueError.
        """
        if self._authorities is None or self._trust is None or self._trust[0] is None:
            return False  # by the system's authorities it is known already
        return self._authorities.take(message, beside=self._trust[0])

    @property
    def authority(self) -> str | None:
        """The version of the authorities that it told of, and that count now."""
        if self._authorities is None or self._trust is None or self._trust[0] is None:
            return None
        return self._authorities.version(self._trust[0])


def _file(path: Path, flag: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("ascii", "replace")
    except OSError as error:
        raise OperatorError(f"{flag} {path} cannot be read: {error.strerror}") from None


async def _no_redirect(*_: object) -> None:
    # aiohttp would follow, from https to http too.
    raise OperatorError("it answered with a redirect, and those are not followed; check --operator")


def _status(status: int, headers: Mapping[str, str]) -> OperatorError:
    wait = retry_after(headers.get("Retry-After", ""), now=time.time()) if status in {429, 503} else None
    advice = _ADVICE.get(status, "check what answers at that address")
    return OperatorError(f"it answered {status}: {advice}", status=status, retry_after=wait)


def _refuse(error: Exception, trust: str) -> NoReturn:
    """Convert what aiohttp raises, without its own text: that may quote a request."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        raise _status(error.status, error.headers or {}) from None
    why = failures.why(
        error,
        trust=trust,
        plain="check --operator",
        late=f"it did not answer within {_ANSWER_S:g} s",
    )
    raise OperatorError(f"it cannot be reached: {why}") from None
