"""URLs that somebody else wrote: sent byte for byte, because a signature may cover every byte of them.

What RFC 3986 allows in a path or a query stays as it is written, whatever it would mean when decoded: ``%2F``,
``%27``, ``+``, ``..`` in an absolute URL, a ``?`` with nothing behind it. What it does not allow (a space, a
bracket, a letter beyond ASCII, a ``%`` without two digits) is escaped, and nothing else is. The fragment is never
sent.

The syntax is that of https://www.rfc-editor.org/rfc/rfc3986 : appendix A (characters), appendix B (parts) and
section 5.2 (relative references).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_plus

from yarl import URL

from hookline_artifacts.net.paths import without_dots

_PARTS: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)
_ILLEGAL: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]")
_MAX_AUTHORITY: Final = 1024
"""Characters of a user, a password, a host and a port: a host has 253, and encoding one takes more than linear time."""
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|(?=[^%]*:)[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")


def foreign(text: str, *, base: URL | None = None) -> URL:
    """The http or https URL in ``text``; relative to ``base`` where one is given.

    Path and query are together in the result's ``raw_path``, so that no library takes them apart and writes them
    anew. Raises ValueError for anything that cannot be asked.
    """
    match = _PARTS.fullmatch(text.strip(" \t\r\n"))
    assert match is not None  # noqa: S101 - every part may be empty, and the last takes the rest
    scheme, authority, path, query = match.groups()
    if authority is not None:
        scheme = scheme or (base.scheme if base is not None else "")
        try:
            home = _home(scheme.lower(), authority)
        except IndexError:  # yarl's own, for brackets with nothing behind the @: https://[::1]@/
            raise ValueError("it names no host") from None
    elif scheme is None and base is not None:
        home = base.origin()
        before, _, asked = base.raw_path.partition("?")
        if not path:
            path, query = before, query if query is not None else asked and f"?{asked}"
        elif not path.startswith("/"):
            path = without_dots(before.rpartition("/")[0] + "/" + path)
    else:
        raise ValueError("it names no host")
    return home.with_path(_escaped(path or "/") + _escaped(query or ""), encoded=True)


def with_query(url: URL, fields: dict[str, str]) -> URL:
    """A ``foreign`` URL with these fields in its query; what else is in there stays as it is."""
    path, _, query = url.raw_path.partition("?")
    pairs = query.split("&") if query else []
    kept = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in fields]
    ours = [f"{quote(key, safe='')}={quote(value, safe=':/')}" for key, value in fields.items()]
    return url.with_path(f"{path}?{'&'.join(kept + ours)}", encoded=True)


def shown(url: URL) -> str:
    """The URL for people: no user, no password, no query, no fragment."""
    return re.split("[?#]", str(url.with_user(None)), maxsplit=1)[0]


def _home(scheme: str, authority: str) -> URL:
    if len(authority) > _MAX_AUTHORITY:
        raise ValueError("its host is too long")
    home = URL(f"{scheme}://{authority}")
    if scheme not in {"http", "https"} or not home.raw_host or not _HOST.fullmatch(home.raw_host):
        raise ValueError("it is not an http or https URL with a host")
    return home.with_path("/")


def _escaped(text: str) -> str:
    # Bytes of a header that are not UTF-8 arrive as surrogates, and leave as the same bytes.
    data = text.encode("utf-8", "surrogateescape")
    return _ILLEGAL.sub(lambda found: b"%%%02X" % found[0][0], data).decode("ascii")
