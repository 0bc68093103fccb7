"""Rows about settings: Secrets, schemas, permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from truth import guests
from truth.looks import answers, condition, event, kubectl_says, ready, status, step
from truth.row import Look, Row

if TYPE_CHECKING:
    from truth.scene import Scene

SCHEMA: Final = {
    "type": "object",
    "properties": {"limit": {"type": "string", "pattern": "^[0-9]+$"}},
    "additionalProperties": False,
}
READS: Final = "env.kv_get (param i32 i32 i32 i32) (result i32)"
CHANGE: Final = r"change the resource[^;]*"
WELL: Final = (ready(), answers("good"))
_GOES_ON: Final = "version goes on in 2 pods"


def _from_secret(name: str = "settings", key: str = "limit") -> list[dict[str, Any]]:
    return [{"secretRef": {"name": name}, "key": key, "path": "limit"}]


def prepare(scene: Scene) -> None:
    """A plugin with a schema and a setting from a Secret."""
    scene.push("good", guests.identity_module("good", schema=SCHEMA))
    scene.push("reads", guests.imports("good", READS))
    scene.tenant.secret("settings", limit="5")
    _mend(scene)


def _mend(scene: Scene) -> None:
    scene.tenant.secret("settings", limit="5")
    scene.guard(configFrom=_from_secret())


def _annotated(scene: Scene) -> None:
    scene.tenant.kubectl("annotate", "secret", "settings", "--overwrite", "example.com/seen=today")


def _refused_by_kubectl(scene: Scene) -> None:
    scene.try_guard(config={"limit": "many"})


def _lenient(scene: Scene) -> None:
    scene.guard("reads", permissionsPolicy="Lenient")


def _strict(scene: Scene) -> None:
    """The webhook refuses it; where it does not know the module yet the status says it."""
    scene.try_guard("reads")


def _refused_or_told(words: str, reason: str = "ConfigInvalid") -> Look:
    """By the webhook; where that gives up, as it does on a busy machine, the operator finds it all the same."""

    def look(scene: Scene) -> str:
        refused = kubectl_says(f"admission webhook.*{words}")(scene)
        return refused or condition("Ready", "False", reason, words)(scene)

    return look


def _deleted(scene: Scene) -> None:
    scene.tenant.kubectl("delete", "secret", "settings")


def _invalid(words: str) -> tuple[Any, ...]:
    return condition("Ready", "False", "ConfigInvalid", f"{words}.*{_GOES_ON}"), step(), event("ConfigInvalid")


OF_SETTINGS: Final = [
    Row(
        name="secret-missing", what="settings from a Secret that is not there",
        breaks=lambda scene: scene.guard(configFrom=_from_secret("not-there")),
        says=_invalid("not-there"), next_step=CHANGE, mends=_mend, well=WELL,
    ),
    Row(
        name="key-missing", what="settings from a key that the Secret has not",
        breaks=lambda scene: scene.guard(configFrom=_from_secret(key="limti")),
        says=_invalid("limti"), next_step=CHANGE, mends=_mend, well=WELL,
    ),
    Row(
        name="secret-deleted", what="the Secret deleted that settings come from",
        breaks=_deleted,
        says=_invalid("settings"), next_step=CHANGE, mends=_mend, well=WELL,
    ),
    Row(
        name="secret-wrong", what="a Secret changed to what the plugin's schema refuses",
        breaks=lambda scene: scene.tenant.secret("settings", limit="a secret word"),
        says=_invalid(r"^(?!.*secret word).*limit"), next_step=CHANGE,
        mends=_mend, well=WELL,
    ),
    Row(
        name="schema", what="a setting that the plugin's schema refuses, applied",
        breaks=_refused_by_kubectl,
        says=(_refused_or_told(r"config\.limit"),),
        next_step=r"config\.limit[^;,]*",
        mends=_mend, well=WELL,
    ),
    Row(
        name="permission", what="a module that imports a function without its permission",
        breaks=_strict,
        says=(_refused_or_told("kv.read", "PermissionsIncreased"),),
        next_step=r"add (it|kv\.read) to spec\.permissions", mends=_mend, well=WELL,
    ),
    Row(
        name="permission-lenient", what="the same, with `permissionsPolicy: Lenient`",
        breaks=_lenient,
        says=(
            condition("Ready", "False", "PermissionsIncreased", f"kv.read.*{_GOES_ON}"),
            event("PermissionsIncreased"),
        ),
        next_step=r"add (it|kv\.read) to spec\.permissions", mends=_mend, well=WELL,
    ),
    Row(
        name="secret-annotated", what="nothing: a Secret that is only annotated",
        breaks=_annotated, quiet_s=10.0, says=(status("loaded", "2/2"),), next_step="", well=WELL,
    ),
]  # fmt: skip
