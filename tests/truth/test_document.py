"""docs/operate/truth.md is what was measured."""

from __future__ import annotations

from truth import lanes, table


def test_the_table_is_made_of_the_figures():
    """Nobody wrote a line by hand, and no row is missing."""
    figures = table.read()
    assert f"{table.BEGIN}\n{table.markdown(figures)}\n{table.END}" in table.DOCUMENT.read_text()
    assert list(figures) == lanes.ORDER


def test_no_row_is_false():
    """Each says what to do next, and none lost a request."""
    figures = table.read()
    assert len(figures) >= 40
    assert [name for name, each in figures.items() if not each["words"] or not each["next_step"]] == []
    assert {name: each["lost"] for name, each in figures.items() if each["lost"]} == {}


def test_a_pipe_in_a_sentence_does_not_end_its_cell():
    """Words of others are shown as they are."""
    row = {
        "what": "a | b", "words": ["Ready=False X: `a`|b"], "next_step": "push", "asked_s": 5.0, "measured_s": 6.5,
        "mended_s": 1.0, "requests": 9, "refused": 2, "lost": 0,
    }  # fmt: skip
    lines = table.markdown({"row": row}).splitlines()
    assert lines[2] == "| a \\| b | ``Ready=False X: `a`\\|b`` | push | 5 s | **6.5 s** | 1 s | 0 of 9 (2 refused) |"
    assert lines[-1] == "1 rows, 1 of them later than asked; 0 of 9 requests lost."


def test_a_sentence_is_not_shown_twice():
    """An Event with the words of the condition is named, and one with others is shown."""
    words = ["Ready=False X: why", "Event of WasmPlugin: Warning X: why", "Event of Pod: Warning Y: other"]
    row = {
        "what": "a", "words": words, "next_step": "push", "asked_s": 5.0, "measured_s": 1.0,
        "mended_s": 1.0, "requests": 9, "refused": 0, "lost": 0,
    }  # fmt: skip
    cell = table.markdown({"row": row}).splitlines()[2].split(" | ")[1]
    assert cell == (
        "`Ready=False X: why`<br>and the same in an Event of WasmPlugin: Warning X<br>`Event of Pod: Warning Y: other`"
    )


def test_where_nothing_is_wrong_nothing_is_asked():
    """A row that must stay quiet has no times."""
    row = {
        "what": "nothing", "words": ["Ready=True"], "next_step": "nothing", "asked_s": 0.0, "measured_s": 0.0,
        "mended_s": 0.0, "requests": 9, "refused": 0, "lost": 0,
    }  # fmt: skip
    assert "| never | never |  | 0 of 9 |" in table.markdown({"row": row})
