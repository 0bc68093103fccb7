"""The program: its commands, each imported when it is called, and the last line of defence against a traceback."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from hookline_cli import frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from click.shell_completion import CompletionItem


_GARBAGE: Final = 50_000
"""Objects before garbage is looked for: classes that are imported are none, and make a tenth of a call's time."""


_UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF})
"""What stdout says where nobody reads it, or its disk is full."""


class _Entry(NamedTuple):
    module: str
    name: str
    text: str
    """The first line of its help."""


COMMANDS: Final = {
    "annotate": _Entry("annotate", "ANNOTATE", "Put a plugin's description and its cases into its module."),
    "bench": _Entry("bench", "BENCH", "Measure the hooks of a plugin, beside a guest that does nothing."),
    "build": _Entry("build", "BUILD", "Build a plugin's project into one module."),
    "call": _Entry("call", "CALL", "Call a hook of a plugin, and show what it decides."),
    "completion": _Entry("completion", "COMPLETION", "Print what makes a shell complete commands and options."),
    "dev": _Entry("dev", "DEV", "Build a project whenever it changes, and run it in a sidecar on this machine."),
    "inspect": _Entry(
        "inspect", "INSPECT", "Show what an artifact is, what it asks for, and the resource that would run it."
    ),
    "new": _Entry("new", "NEW", "Make a plugin's project in a new folder."),
    "test": _Entry("test", "TEST", "Hold a plugin against its cases."),
    "check": _Entry("check", "CHECK", "Judge manifests as a cluster, or a sidecar, would."),
    "push": _Entry("push", "PUSH", "Push a module into a registry or a folder."),
    "pull": _Entry("pull", "PULL", "Pull a module out of a registry or a folder."),
    "keygen": _Entry("keygen", "KEYGEN", "Make a pair of keys to sign plugins with."),
    "sign": _Entry("sign", "SIGN", "Sign an artifact in a registry, in a folder, or a file."),
    "verify": _Entry("verify", "VERIFY", "Verify who has signed an artifact."),
    "save": _Entry("save", "SAVE", "Save artifacts with their signatures into one file."),
    "load": _Entry("load", "LOAD", "Load what was saved into a registry or a folder."),
    "status": _Entry("status", "STATUS", "Show plugins, and what each pod runs of one."),
    "why": _Entry("why", "WHY", "Explain why a plugin does not answer yet."),
    "kv list": _Entry("kv", "LIST", "List a plugin's keys with their sizes, or the plugins."),
    "kv get": _Entry("kv", "GET", "Write a value to stdout, byte for byte."),
    "kv set": _Entry("kv", "SET", "Store a value."),
    "kv delete": _Entry("kv", "DELETE", "Delete a key; one that does not exist is no error."),
    "policy check": _Entry("policy", "CHECK", "Tell what policies would refuse of manifests or of a cluster."),
}
"""Those of a group have its name in front."""
_TASKS: Final = {
    "Write a plugin": ("new", "build", "annotate", "test", "call", "bench", "dev", "inspect"),
    "Publish it": ("push", "pull", "save", "load"),
    "Trust it": ("keygen", "sign", "verify", "policy"),
    "Run it": ("check", "status", "why", "kv"),
    "This program": ("completion",),
}
"""What people do, and by which commands, in the order in which they are listed."""
_GROUPS: Final = {
    "kv": "The keys of plugins in a sidecar.",
    "policy": "Policies: which plugins may run, and what they may do.",
}


class _Lazy(click.Group):
    """A group whose commands are imported one by one."""

    def __init__(self, prefix: str = "", **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]  # click's own parameters
        self._prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names, as they are listed."""
        own = (each.removeprefix(self._prefix) for each in COMMANDS if each.startswith(self._prefix))
        names = dict.fromkeys(name.partition(" ")[0] for name in own)
        if self._prefix:
            return list(names)
        listed = [name for task in _TASKS.values() for name in task if name in names]
        return [*listed, *(name for name in names if name not in listed)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With the command that may be meant by one that is not there."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # noqa: PLC0415 - nobody needs it who spells right

            near = difflib.get_close_matches(args[0][:100].lower(), self.list_commands(ctx), n=1)
            more = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"{error.message} {more}", ctx) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        whole = f"{self._prefix}{cmd_name}"
        if not self._prefix and cmd_name in _GROUPS:
            return _Lazy(f"{cmd_name} ", name=cmd_name, help=_GROUPS[cmd_name])
        if whole not in COMMANDS:
            return None
        entry = COMMANDS[whole]
        found: click.Command = getattr(importlib.import_module(f"hookline_cli.commands.{entry.module}"), entry.name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by task, without importing any."""
        names = self.list_commands(ctx)
        tasks = {} if self._prefix else {task: [each for each in own if each in names] for task, own in _TASKS.items()}
        rest = [name for name in names if not any(name in own for own in tasks.values())]
        widest = max(map(len, names))
        for task, own in {**tasks, "Commands": rest}.items():
            if own:
                with formatter.section(task):
                    formatter.write_dl([(name.ljust(widest), self._text(name)) for name in own])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, and of options, without importing any command."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - a shell asks for it, and nobody else

        found = [
            CompletionItem(name, help=self._text(name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def _text(self, name: str) -> str:
        whole = f"{self._prefix}{name}"
        return COMMANDS[whole].text if whole in COMMANDS else _GROUPS[name]


def program(name: str = "hookline") -> click.Group:
    """``hookline``, or as a plugin of kubectl, ``kubectl hookline``."""
    return _Lazy(
        name=name,
        help="Write, publish, trust and run Hookline's plugins.",
        epilog=f"'{name} COMMAND --help' has examples, and the exit codes.",
        params=[
            click.Option(
                ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version,
                help="Show the version.",
            )
        ],
    )  # fmt: skip


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001, FBT001 - click's
    if value:
        import importlib.metadata  # noqa: PLC0415 - 10 ms

        click.echo(f"hookline {importlib.metadata.version('hookline')}")
        ctx.exit()


def main(name: str = "hookline") -> None:
    """The entry point. It always ends with an exit code of ``frame.EXITS``."""
    gc.set_threshold(_GARBAGE)
    atexit.register(gc.freeze)  # an interpreter that ends looks for garbage in all it has: a fifth of a call's time
    frame.called(name)
    _streams()
    # As programs ask for it, where the command line is not understood as well.
    as_json = "--json" in sys.argv[1:]
    try:
        with _ending():
            program(name).main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(frame.failed(error.format_message(), frame.USAGE, as_json=True) if as_json else frame.USAGE)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        sys.exit(frame.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - nobody at a terminal is helped by a traceback
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            sys.exit(frame.unwritable(error))
        sys.exit(frame.fault(error, as_json=as_json))


def _streams() -> None:
    """Each of the three is there: a file that is opened would get the number of one that is closed."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, mode))  # noqa: SIM115, PTH123 - to the end of the process


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """A signal that ends it, and a terminal that goes away, are as Ctrl-C is: what it began is taken away again."""

    def interrupted(number: int, frame_: FrameType | None) -> None:  # noqa: ARG001 - the signal's
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame_)
        else:  # in the background of a shell, Ctrl-C is ignored
            raise KeyboardInterrupt

    taken = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]
    for each in taken:  # nohup ignores one
        signal.signal(each, interrupted)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)


def kubectl() -> None:
    """The entry point as a plugin of kubectl, ``kubectl-hookline``."""
    main(frame.KUBECTL)
