"""Rows about where modules come from: tags, digests, registries, passwords, what is in a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from truth import guests
from truth.looks import answers, condition, event, ready, step
from truth.row import Act, Look, Row

if TYPE_CHECKING:
    from truth.scene import Scene

GOES_ON: Final = "version goes on in 2 pods"
_NOTHING: Final = "sha256:" + "0" * 64
MEND: Final = r"check the reference[^;]*|mend the source[^;,]*"
AGAIN: Final = r"tried again[^;,]*"
PUSH: Final = r"push[^;]*"
WELL: Final = (ready(), answers("good"))


def prepare(scene: Scene) -> None:
    """What the rows ask for, and a good plugin in two proxies."""
    scene.push("good")
    scene.push("text", b"this is not a module", greets=False)
    scene.push("curious", guests.imports("curious", "env.launch_missiles (param i32)"), greets=False)
    for tag in ("away", "private", "anonymous", "no-secret"):  # each is asked for once
        scene.push(tag, guests.identity_module("good"))
    scene.guard()


def _mend(scene: Scene) -> None:
    scene.registry.mood = "honest"
    scene.guard()


def _failed(reason: str, words: str = "") -> tuple[Look, ...]:
    """``Ready`` says why and that nothing was lost, and an Event says it once more."""
    return condition("Ready", "False", reason, f"{words}.*{GOES_ON}"), step(), event(reason)


def _in_mood(mood: str) -> Act:
    """Ask such a registry for a version that nobody has."""

    def act(scene: Scene) -> None:
        tag = f"new-{mood}"
        scene.push(tag, guests.identity_module("good", more=f'(global (export "{mood}") i32 (i32.const 0))'))
        scene.registry.mood = mood  # type: ignore[assignment]
        scene.mark()
        scene.guard(tag)

    return act


def _down(scene: Scene) -> None:
    scene.registry.stop()
    scene.guard("away")


def _up(scene: Scene) -> None:
    scene.registry.start()
    # Nobody touches the resource: it is asked again.


def _rotated(scene: Scene) -> None:
    scene.tenant.apply(scene.registry.pull_secret("pull", "the-old-one"))
    scene.registry.password = "the-new-one"
    scene.mark()
    scene.guard("private", secret="pull")


def _new_password(scene: Scene) -> None:
    scene.tenant.apply(scene.registry.pull_secret("pull", "the-new-one"))


def _no_password(scene: Scene) -> None:
    scene.registry.password = "the-new-one"
    scene.guard("anonymous")


def _open_again(scene: Scene) -> None:
    scene.registry.password = None
    scene.guard()


def _no_pull_secret(scene: Scene) -> None:
    scene.registry.password = "the-new-one"
    scene.guard("no-secret", secret="not-there")


FROM_SOURCES: Final = [
    Row(
        name="wrong-tag", what="a tag that is not in the registry",
        breaks=lambda scene: scene.guard("tpyo"),
        says=_failed("FetchFailed", "tpyo"), next_step=MEND, mends=_mend, well=WELL,
    ),
    Row(
        name="wrong-digest", what="a digest that is not in the registry",
        breaks=lambda scene: scene.tenant.plugin("guard", f"{scene.registry.host}/guard@{_NOTHING}"),
        says=_failed("FetchFailed", _NOTHING), next_step=MEND, mends=_mend, well=WELL,
    ),
    Row(
        name="other-bytes", what="`spec.sha256` of another module",
        breaks=lambda scene: scene.guard(sha256="0" * 64),
        says=_failed("VerifyFailed", "sha256"), next_step=r"spec\.sha256[^;,]*", mends=_mend, well=WELL,
    ),
    Row(
        name="no-module", what="a text in the place of a module",
        breaks=lambda scene: scene.guard("text"),
        says=_failed("VerifyFailed", "WebAssembly"), next_step=PUSH, mends=_mend, well=WELL,
    ),
    Row(
        name="unknown-import", what="a module that imports what no host has",
        breaks=lambda scene: scene.guard("curious"),
        says=_failed("VerifyFailed", "launch_missiles"), next_step=PUSH, mends=_mend, well=WELL,
    ),
    Row(
        name="registry-lies", what="a registry that sends other bytes than it promised",
        breaks=_in_mood("lying"),
        says=_failed("(Fetch|Verify)Failed", "sha256"), next_step=PUSH, mends=_mend, well=WELL,
    ),
    Row(
        name="registry-broken", what="a registry that answers 500",
        breaks=_in_mood("broken"),
        says=_failed("FetchFailed", "500"), next_step=AGAIN, mends=_mend, well=WELL,
    ),
    Row(
        name="registry-crowded", what="a registry that answers 429",
        breaks=_in_mood("crowded"),
        says=_failed("FetchFailed", "429"), next_step=AGAIN, mends=_mend, well=WELL,
    ),
    Row(
        name="no-registry", what="a login page in the place of a registry",
        breaks=_in_mood("no-registry"),
        says=_failed("FetchFailed"), next_step=r"registry[^;,]*", mends=_mend, well=WELL,
    ),
    Row(
        name="registry-slow", what="a registry that does not answer",
        breaks=_in_mood("silent"),
        says=(condition("Ready", "False", "Pending", "has not sent"),),
        next_step=r"where that lasts, look there", mends=_mend, well=WELL,
    ),
    Row(
        name="registry-down", what="a registry that is away, and comes back by itself",
        breaks=_down,
        says=_failed("FetchFailed", "away"), next_step=AGAIN, mends=_up, well=WELL,
    ),
    Row(
        name="password-rotated", what="the registry's password rotated, the old one in the pull Secret",
        breaks=_rotated,
        says=_failed("FetchFailed", "401.*pull"), next_step=r"[^;]*Secret[^;]*pull[^;]*",
        mends=_new_password, well=WELL,
    ),
    Row(
        name="no-pull-secret", what="a pull Secret that is not there",
        breaks=_no_pull_secret,
        says=_failed("FetchFailed", "not-there"), next_step=r"create[^;,]*|Secret[^;,]*not-there[^;,]*",
        mends=_open_again, well=WELL,
    ),
    Row(
        name="no-password", what="no pull Secret where the registry wants a password",
        breaks=_no_password,
        says=_failed("FetchFailed", "401"), next_step=r"name one in spec\.source\.oci\.pullSecrets[^(;]*",
        mends=_open_again, well=WELL,
    ),
]  # fmt: skip
