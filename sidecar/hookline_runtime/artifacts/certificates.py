"""Why a server's certificate is not trusted, and what to do about it, in one sentence.

Python 3.13 and newer hold every certificate of a chain to RFC 5280 (``VERIFY_X509_STRICT``). Many an authority that was
made by hand does not pass, and older interpreters take it. That check stays: it is told apart here, because its remedy
is another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import aiohttp

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
