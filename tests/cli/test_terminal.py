"""What commands print holds words of registries, clusters and modules; none of them commands a terminal."""

from __future__ import annotations

import click
import pytest

from hookline_cli import frame
from hookline_cli.frame import Answer, RefusedError

EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9bd\re\u202ef\x1b[8mg"
SHOWN = r"a\x1b[2Jb\x1b]0;title\x07c\x9bd\re\u202ef\x1b[8mg"


def test_an_answer_s_lines_are_shown_with_what_is_not_printable_escaped(capsys) -> None:
    """Colors of ours stay, and so do the ends of lines."""
    ours = click.style("ok", fg="green", bold=True)
    assert frame.for_terminal(f"{ours} {EVIL}\nof ours:\tü") == f"{ours} {SHOWN}\nof ours:\tü"
    frame._run(lambda: Answer(lines=[EVIL, "ü"]), {}, as_json=False)
    assert capsys.readouterr().out == f"{SHOWN}\nü\n"


@pytest.mark.parametrize("error", [RefusedError(EVIL), OSError(5, EVIL, f"file{EVIL}"), click.ClickException(EVIL)])
def test_so_is_why_it_failed(capsys, error) -> None:
    """Also a fault of ours, and what the system says of a file."""

    def fails() -> Answer:
        raise error

    try:
        frame._run(fails, {}, as_json=False)
    except click.ClickException as found:
        frame.fault(found)
    told = capsys.readouterr().err
    assert "\\x1b[2Jb" in told
    assert told.rstrip("\n").isprintable()
