"""``hookline completion``."""

from __future__ import annotations

import click

from hookline_cli.frame import Answer, command

_EXAMPLES = """
hookline completion bash > ~/.local/share/bash-completion/completions/hookline
hookline completion zsh > ~/.zfunc/_hookline
hookline completion fish > ~/.config/fish/completions/hookline.fish
"""
_VARIABLE = "_HOOKLINE_COMPLETE"
"""By which the script asks this program; click derives the same name."""


@command(
    "completion",
    text="""Print what makes a shell complete commands and options.

    Write it where the shell looks for it, as the examples do, and open a new shell. For zsh, ~/.zfunc has to be in
    fpath before compinit runs.""",
    examples=_EXAMPLES,
    options=[click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))],
)
def COMPLETION(*, shell: str) -> Answer:  # noqa: N802 - what the decorator makes of it is a constant
    """Print the script."""
    from click.shell_completion import ShellComplete, get_completion_class  # noqa: PLC0415 - for this alone

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    own = kind(click.Command("hookline"), {}, "hookline", _VARIABLE)
    # Not the class's own ``source``: bash's runs a bash first, which need not be on this machine.
    script = ShellComplete.source(own)
    return Answer(lines=script.rstrip().splitlines(), data={"shell": shell, "script": script})
