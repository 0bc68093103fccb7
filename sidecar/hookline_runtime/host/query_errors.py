"""What can be wrong with a query, as a guest is told."""

from __future__ import annotations

from typing import Final, Literal

import orjson

from hookline_api.text import readable

Cause = Literal["timeout", "denied", "limit", "failed"]

MAX_MESSAGE: Final = 500
"""Characters of a sentence: a server may put any text into one."""
BAD_TEXT: Final = "22021"
"""SQLSTATE character_not_in_repertoire: NUL, and what is not UTF-8.
https://www.postgresql.org/docs/current/errcodes-appendix.html is the source of all of them."""
BAD_PARAMETER: Final = "22023"
"""SQLSTATE invalid_parameter_value."""
SYNTAX: Final = "42601"
"""SQLSTATE syntax_error."""


class QueryError(Exception):
    """A query was not answered. ``cause`` is for programs, ``message`` one sentence, ``sqlstate`` the server's code."""

    def __init__(self, cause: Cause, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.message = readable(message, MAX_MESSAGE)
        self.sqlstate = sqlstate

    def json(self) -> bytes:
        """``{"error": {"cause", "message", "sqlstate"?}}``."""
        said = {"cause": self.cause, "message": self.message}
        if self.sqlstate is not None:
            said["sqlstate"] = self.sqlstate
        return orjson.dumps({"error": said})


class NotGrantedError(QueryError):
    """The plugin's permissions do not name that source."""

    def __init__(self, source: str) -> None:
        super().__init__("denied", f"the plugin's permissions do not name the data source '{source}'")
