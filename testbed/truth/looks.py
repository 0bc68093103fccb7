"""What a person with kubectl sees: columns, conditions, Events, and what kubectl answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truth.row import Look
    from truth.scene import Scene


def condition(kind: str, status: str, reason: str = "", words: str = "", *, of: str = "guard") -> Look:
    """A condition of a plugin about its newest generation; the others are regular expressions."""

    def look(scene: Scene) -> str:
        found = scene.condition(of, kind)
        if not found or not re.fullmatch(status, found["status"]) or not re.fullmatch(reason or ".*", found["reason"]):
            return ""
        if not re.search(words, found["message"], re.DOTALL):
            return ""
        return f"{kind}={found['status']} {found['reason']}: {found['message']}"

    return look


def step(*, of: str = "guard") -> Look:
    """What it takes, or what is under way: the message of ``Stalled`` or of ``Reconciling``, whichever holds."""

    def look(scene: Scene) -> str:
        for kind in ("Stalled", "Reconciling"):
            found = scene.condition(of, kind)
            if found and found["status"] == "True":
                return f"{kind}: {found['message']}"
        return ""

    return look


def ready(*, of: str = "guard") -> Look:
    """All is well, and every condition says so."""

    def look(scene: Scene) -> str:
        found = {kind: scene.condition(of, kind) for kind in ("Ready", "Healthy", "Stalled", "Reconciling")}
        wanted = {"Ready": "True", "Healthy": "True", "Stalled": "False", "Reconciling": "False"}
        known = {kind: each["status"] for kind, each in found.items() if each}
        return "Ready" if known and known == {kind: wanted[kind] for kind in known} and "Ready" in known else ""

    return look


def event(reason: str, words: str = "", *, kind: str = "WasmPlugin", of: str = "guard") -> Look:
    """An Event of an object since the row began; ``of`` is a regular expression."""

    def look(scene: Scene) -> str:
        for each in scene.events():
            about = each["involvedObject"]
            if about["kind"] != kind or not re.fullmatch(of, about["name"]) or not re.fullmatch(reason, each["reason"]):
                continue
            if re.search(words, each.get("message", ""), re.DOTALL):
                return f"Event of {kind}: {each['type']} {each['reason']}: {each['message']}"
        return ""

    return look


def kubectl_says(words: str) -> Look:
    """What kubectl answered to the command that broke it."""

    def look(scene: Scene) -> str:
        found = re.search(words, scene.said, re.DOTALL)
        return scene.said.strip() if found else ""

    return look


def listed(words: str, *command: str) -> Look:
    """A line that a ``kubectl get`` prints."""

    def look(scene: Scene) -> str:
        for line in scene.cluster_says(*command).splitlines():
            if re.search(words, line):
                return re.sub(r"\s{2,}", "  ", line.strip())
        return ""

    return look


def status(what: str, wanted: Any, *, of: str = "guard") -> Look:
    """A field of the status, by a path with dots."""

    def look(scene: Scene) -> str:
        found: Any = scene.plugin(of).get("status", {})
        for name in what.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return f"{what}: {found}" if found == wanted else ""

    return look


def settled(*, of: str = "guard") -> Look:
    """No pod could have to go back any more: the operator keeps one revision, and none before it."""

    def look(scene: Scene) -> str:
        kept = [each for each in scene.revisions() if each.get("plugin") == of]
        return "settled" if len(kept) == 1 else ""

    return look


def answers(name: str) -> Look:
    """Each proxy greets by this name: the version that decides."""

    def look(scene: Scene) -> str:
        seen = {each.pod: each.text for each in scene.load.answers[-4 * len(scene.load.proxies) :]}
        return "answers" if seen and set(seen.values()) == {f"hello, {name}"} else ""

    return look
