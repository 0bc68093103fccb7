"""A guard against recursion: what plugins ask of a database behind a proxy that asks plugins.

Each connection of a data source has as its ``application_name`` a token that nobody can guess. Where a proxy asks about
a statement of such a connection, plugins with data sources are left out, for each of them might ask again.

Everybody who may look into ``pg_stat_activity`` sees a token. So it counts only together with the source's own user and
database, as the proxy says them: whoever can be that user has the credentials already. What does not match is asked
about, and then the recursion ends with the connections of the sources, closed. So it does for ``authenticate``: nobody
has proven yet who a client is that logs in.

The token is made of the plugin's seal, which all pods have alike and tell nobody; of a plugin without Secrets it is
made of a number of this process, and of those that are forked from it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import DataSource

PREFIX: Final = "hookline-"
_SIZE: Final = 32
"""Hex digits: PostgreSQL cuts the name after 63 characters."""
# DANGER: made when this is imported, which the sidecar's parent does before it forks: workers have it alike.
_OWN: Final = os.urandom(32)


def application_name(plugin: BundlePlugin, source: DataSource) -> str:
    """The name that a data source's connections have."""
    key = _OWN if plugin.seal is None else plugin.seal.encode()
    text = "\0".join(("recursion", plugin.namespace or "", plugin.name, source.name))
    return PREFIX + hmac.digest(key, text.encode(), "sha256").hex()[:_SIZE]


def own(plugins: Iterable[BundlePlugin]) -> frozenset[tuple[str | None, str | None, str | None]]:
    """How the calls look that are about what these plugins ask: application, user and database."""
    return frozenset(
        (application_name(plugin, source), source.postgres.user, source.postgres.database)
        for plugin in plugins
        for source in plugin.data_sources
    )
