"""What fuzzing begins with, and what it found, is read by each parser within its steps, and with no other error."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fuzzing.__main__ import write_seeds
from fuzzing.targets import Target, check, longer, steps_of, targets

CORPUS = Path(__file__).with_name("corpus")
TESTBED = Path(__file__).parents[2] / "testbed"
MOST_BYTES = 300_000


@pytest.mark.parametrize("name", targets())
def test_a_parser_withstands_its_corpus(name):
    """Nothing but its own error, and no more steps than its bytes allow."""
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    for each in kept:
        check(targets()[name], each.read_bytes())


@pytest.mark.parametrize("name", targets())
def test_twice_the_bytes_are_at_most_twice_the_steps(name):
    """Each input, and the same again behind it: what is not linear shows here before it hurts."""
    target = targets()[name]
    for each in sorted((CORPUS / name).iterdir()):
        data = each.read_bytes()
        once, twice = (steps_of(partial(target.run, longer(target, data, n))) for n in (4, 8))
        assert twice <= 2.3 * once + target.base, f"{each.name}: {once} steps, and {twice} for twice the bytes"


def test_the_seeds_are_those_that_are_made(tmp_path):
    """`python -m fuzzing --seeds` writes them; no byte of them is of unknown origin."""
    write_seeds(tmp_path)
    made = {each.relative_to(tmp_path): each.read_bytes() for each in tmp_path.rglob("seed-*")}
    assert made == {each.relative_to(CORPUS): each.read_bytes() for each in CORPUS.rglob("seed-*")}
    assert {each.parts[0] for each in made} == set(targets())


def test_the_corpus_stays_small():
    """It is read by everybody who clones the project."""
    assert sum(each.stat().st_size for each in CORPUS.rglob("*") if each.is_file()) < MOST_BYTES


def test_a_parser_that_takes_too_many_steps_is_noticed():
    """The measure itself: a quadratic loop is over any linear bound."""

    def quadratic(data):
        for _ in data:
            for _ in data:
                pass

    with pytest.raises(AssertionError, match="steps for 400 bytes"):
        check(Target(name="quadratic", run=quadratic, steps=100), bytes(400))


def test_the_fuzzer_runs():
    """A few inputs of one target, by whichever of the two ways this machine has."""
    environment = os.environ | {"PYTHONPATH": str(TESTBED)}
    command = [sys.executable, "-m", "fuzzing", "--target", "quantities", "--runs=50", "--seconds=60"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("without a look" in done.stdout) == (importlib.util.find_spec("atheris") is None)
