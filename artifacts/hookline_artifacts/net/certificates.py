"""Why a server's certificate is not trusted, and what to do about it, in one sentence.

Python 3.13 and newer hold every certificate of a chain to RFC 5280 (``VERIFY_X509_STRICT``). Many an authority that was
made by hand does not pass, and older interpreters take it. That check stays: it is told apart here, because its remedy
is another one.

Certificates that a tenant gives are counted first: OpenSSL takes more than linear time in them, on the event loop, and
eight times their text in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError

if TYPE_CHECKING:
    import aiohttp

MAX_PEM: Final = 2**19
"""Characters of a registry's own authorities. All that browsers trust, which some hand out to every namespace, have 220
KiB, and twice that with a text above each."""
MAX_CERTIFICATES: Final = 400
"""… and how many they are; browsers trust some 150. So many take a twentieth of a second to read, 2,600 take one."""
MAX_KEPT: Final = 2 * 2**20
"""Characters of all authorities that are kept, read, in one process: 16 MiB of memory."""
_BEGINS: Final = "-----BEGIN"

# X509_V_ERR_INVALID_CA to X509_V_ERR_EC_KEY_EXPLICIT_PARAMS of OpenSSL 3 (x509_vfy.h): a certificate's own form.
_FORM: Final = range(79, 95)
_REMEDY: Final = (
    "Python 3.13 and newer take only what RFC 5280 allows: issue it anew, the authority with basicConstraints "
    "(critical), keyUsage (keyCertSign) and subjectKeyIdentifier, and the server's with authorityKeyIdentifier"
)


def distrust(error: aiohttp.ClientConnectorCertificateError, *, remedy: str) -> str:
    """``its certificate is not trusted (WHY); WHAT TO DO``: ``remedy``, or to issue a certificate of another form."""
    cause = error.certificate_error
    why = getattr(cause, "verify_message", "") or "it does not fit"
    wrong_form = getattr(cause, "verify_code", 0) in _FORM
    return f"its certificate is not trusted ({why}); {_REMEDY if wrong_form else remedy}"


def plain_pem(text: str) -> str:
    """PEM as ``ssl`` takes it: ASCII. Beyond that are comments (names of authorities) and a byte order mark."""
    return text.encode("ascii", "ignore").decode()


def check_pem(text: str) -> None:
    """Raise FetchError for more certificates than are read."""
    if len(text) > MAX_PEM or text.count(_BEGINS) > MAX_CERTIFICATES:
        raise FetchError(
            f"the registry's own certificate authority has more than {MAX_PEM} characters or {MAX_CERTIFICATES} "
            "certificates; leave in the key ca.crt only those that issue the registry's",
            transient=False,
        )
