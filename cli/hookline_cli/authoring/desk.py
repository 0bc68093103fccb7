"""A plugin at its author's desk: on trial, with what a command line asks for."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from typing import TYPE_CHECKING

from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_cli.authoring.inputs import PAGE
from hookline_cli.authoring.subject import Subject, Wanted, check_config, entry_for
from hookline_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from hookline_api.bundle import BundlePlugin
    from hookline_api.cases import HostAnswer
    from hookline_api.hooks import Hook
    from hookline_runtime.runtime import PrepareError
    from hookline_runtime.trial.trial import Called, Trial


class Desk:
    """A plugin that can be called."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    async def call(self, hook: Hook, data: bytes) -> Called:
        """One call. Raises ConfigError where the input is not the hook's."""
        try:
            return await self.trial.call(hook, data)
        except InputError as error:
            field = f"{error.field}: " if error.field and error.field not in str(error) else ""
            raise ConfigError(f"the input is not what {hook.value} is asked with: {field}{error}; {PAGE}") from None


@contextlib.asynccontextmanager
async def at_desk(
    subject: Subject,
    wanted: Wanted,
    hook: Hook,
    *,
    keys: Mapping[str, str] | None = None,
    answers: Sequence[HostAnswer] = (),
) -> AsyncIterator[Desk]:
    """A fresh plugin. Raises ConfigError where it cannot be called so, VerifyError where it is no plugin."""
    entry = await entry_for(subject, wanted)
    check_hook(subject, entry, hook)
    checking = asyncio.ensure_future(check_config(subject, entry.config.parsed()))
    try:
        await asyncio.sleep(0)  # it has forked now, and what follows is imported beside it
        importlib.import_module("hookline_runtime.trial.trial")
        await checking
    finally:
        checking.cancel()
    async with loaded(subject, entry, keys=keys, answers=answers) as trial:
        yield Desk(trial)


@contextlib.asynccontextmanager
async def loaded(
    subject: Subject,
    entry: BundlePlugin,
    *,
    keys: Mapping[str, str] | None = None,
    answers: Sequence[HostAnswer] = (),
) -> AsyncIterator[Trial]:
    """A plugin of this entry on trial. Raises LoadError."""
    from hookline_cli.authoring import kept  # noqa: PLC0415 - the engine: settings are checked meanwhile
    from hookline_runtime.runtime import PrepareError  # noqa: PLC0415
    from hookline_runtime.trial.trial import on_trial  # noqa: PLC0415

    module = await kept.module(subject.wasm, fuel=entry.limits.fuel is not None)
    with quiet():
        try:
            async with on_trial(entry, subject.wasm, module, keys=keys, answers=answers) as trial:
                yield trial
        except PrepareError as error:
            raise of_loading(error) from None


def of_loading(error: PrepareError) -> LoadError:
    """Why a plugin did not load, as an error of its own kind."""
    reason = error.reason
    return reason if isinstance(reason, LoadError) else ConfigError(str(error))


def check_hook(subject: Subject, entry: BundlePlugin, hook: Hook) -> None:
    """Raises ConfigError where a hook is not called."""
    if hook in entry.hooks:
        return
    exported = ", ".join(subject.info.hooks)
    if hook in subject.info.hooks:
        raise ConfigError(
            f"the plugin is not called for {hook.value}: the module exports it, and its plugin.json declares "
            f"{', '.join(entry.hooks)} alone; add it to 'hooks' there"
        )
    raise ConfigError(f"the module {readable(str(subject.path))} does not export {hook.value}; it exports {exported}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the libraries log nothing: what they have to say is in the answers."""
    logger = logging.getLogger("hookline")
    handler, propagates = logging.NullHandler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
