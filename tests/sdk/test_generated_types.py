"""What scripts/write_sdk.py writes: the types of each SDK are those of the contract."""

from __future__ import annotations

import pytest

import write_sdk
from hookline_api.hooks import INPUTS, OBSERVERS, RESULTS, Hook
from sdk_types import model

CONTRACT = model.read()


@pytest.mark.parametrize("language", write_sdk.languages(), ids=lambda language: str(language.__name__))
def test_an_sdk_has_the_types_of_the_contract(language) -> None:
    """Who changes a model writes them again."""
    written = (write_sdk.ROOT / language.TARGET).read_text(encoding="utf-8")
    assert language.render(CONTRACT) == written, "run: make crds"


def test_every_hook_has_its_input_and_its_answers() -> None:
    """All twelve, with the fields and the actions of the models."""
    structs = {struct.name: struct for struct in CONTRACT.structs}
    assert [shape.hook for shape in CONTRACT.hooks] == list(Hook)
    for shape in CONTRACT.hooks:
        model_of = INPUTS[shape.hook]
        if model_of is not None:
            assert [field.name for field in structs[shape.inputs[0]].fields] == list(model_of.model_fields)
        actions = {action for each in RESULTS[shape.hook] for action in each.model_fields["action"].annotation.__args__}
        free = shape.hook in OBSERVERS or shape.hook is Hook.CUSTOM
        assert {answer.action for answer in shape.answers} == (set() if free else actions)


def test_a_structure_comes_behind_those_that_it_holds() -> None:
    """A language that reads from top to bottom needs no declarations ahead."""
    seen: set[str] = set()
    for struct in CONTRACT.structs:
        assert {field.of for field in struct.fields if field.of} <= seen
        seen.add(struct.name)
