"""What the webhook says when somebody deletes a plugin that pods run.

It refuses nothing: the deletion of a namespace, and the garbage collector, must not wait for an operator. It warns
whoever asked, and logs who that was.

DANGER: anybody can reach a webhook. So nothing is said or logged unless the review has the plugin's uid, which is
random, and known to those who may read the plugin. They can make up a review, too: the log has what was claimed, and
the API server's audit log has who it was.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hookline_api.text import readable
from hookline_operator.rations import Ration

if TYPE_CHECKING:
    from hookline_operator.cluster.catalogue import Catalogue

_MAX_USER: Final = 100
"""Characters of a user's name."""
_LINES: Final = 50
_LINES_EACH_SECOND: Final = 1.0
"""Lines of the log: whoever may read a plugin can make up any number of reviews about it."""

log = logging.getLogger("hookline.admission")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deletion:
    """A review of a deletion."""

    namespace: str
    name: str
    uid: str
    user: str
    dry_run: bool

    @classmethod
    def of(cls, review: dict[str, Any]) -> Deletion:
        """From the review's request, whatever is in it."""
        metadata = _mapping(_mapping(review.get("oldObject")).get("metadata"))
        return cls(
            namespace=_text(review.get("namespace")),
            name=_text(review.get("name")) or _text(metadata.get("name")),
            uid=_text(metadata.get("uid")),
            user=readable(_text(_mapping(review.get("userInfo")).get("username")), _MAX_USER) or "somebody",
            dry_run=review.get("dryRun") is True,
        )


class Deletions:
    """Judges deletions by what this replica knows."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lines = Ration(burst=_LINES, each_second=_LINES_EACH_SECOND)

    def note(self, asked: Deletion) -> str | None:
        """Have it in the log. Returns a warning for whoever deletes it; None where no pod runs it."""
        plugin = self._catalogue.plugin((asked.namespace, asked.name))
        told = asked.uid.encode(errors="replace")
        if plugin is None or not hmac.compare_digest(plugin.uid.encode(), told):
            return None
        running = self._catalogue.current(plugin) is not None
        pods = len(self._catalogue.matching(plugin.namespace, plugin.selector)) if running else 0
        if not asked.dry_run and self._lines.take():
            level = logging.WARNING if pods else logging.INFO
            log.log(level, "plugin '%s/%s' is deleted, as %s asks; pods that match: %d", *plugin.key, asked.user, pods)
        if not pods:
            return None
        run = "1 pod runs" if pods == 1 else f"{pods} pods run"
        hooks = _hooks(plugin.last_status().hooks)
        return f"{run} this plugin: from now on, their proxies' hooks{hooks} answer the default, as without a plugin"


def _hooks(names: str | None) -> str:
    return f" ({readable(names, 80)})" if names else ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
