"""What a LoRA file's head says of its making, whatever a stranger wrote there."""

from __future__ import annotations

import json

import pytest

from flux_hotswap.ops.lora.trainer import NOT_SAID, frequent_tag, trainer_of

TRAINERS = {
    "ai-toolkit": ({"software": '{"name": "ai-toolkit", "version": "0.7"}'}, "ai-toolkit 0.7"),
    "ai-toolkit, with kohya's keys": (
        {"ss_base_model_version": "flux1", "software": '{"name": "ai-toolkit"}'},
        "ai-toolkit",
    ),
    "OneTrainer": ({"ot_branch": "master", "modelspec.title": "x"}, "OneTrainer"),
    "kohya": ({"ss_training_comment": "None"}, "kohya's scripts"),
    "kohya, LyCORIS": (
        {"ss_network_module": "lycoris.kohya"},
        "kohya's scripts (lycoris.kohya)",
    ),
    "diffusers": ({"format": "pt", "lora_adapter_metadata": "{}"}, "diffusers"),
    "nobody": ({"format": "pt"}, NOT_SAID),
    "nothing": ({}, NOT_SAID),
    "no JSON": ({"software": "{"}, NOT_SAID),
    "no table": ({"software": "[1]"}, NOT_SAID),
    "no name": ({"software": '{"name": 3}'}, NOT_SAID),
    "a name of blanks": ({"software": '{"name": "  "}'}, NOT_SAID),
    "signs that a terminal obeys": ({"software": '{"name": "a\\u001b[2J"}'}, "a [2J"),
}


@pytest.mark.parametrize(("metadata", "trainer"), TRAINERS.values(), ids=list(TRAINERS))
def test_the_trainer(metadata: dict[str, str], trainer: str) -> None:
    assert trainer_of(metadata) == trainer


def test_settings_beside_a_file_tell_peft() -> None:
    assert trainer_of({"format": "pt"}, config=True) == "PEFT"
    assert trainer_of({"ss_steps": "9"}, config=True) == "kohya's scripts"


TAGS = {
    "one folder": ({"10_x": {"tok": 9, "dog": 3}}, "tok"),
    "several": ({"1_a": {"tok": 5, "dog": 4}, "2_b": {"dog": 4}}, "dog"),
    "none": ({}, None),
    "an empty one": ({"1_a": {"": 4}}, None),
    "no counts": ({"1_a": {"tok": "many"}, "2_b": 7}, None),
    "a long one": ({"1_a": {"x" * 300: 1}}, "x" * 97 + "..."),
    "no table": ([1], None),
}


@pytest.mark.parametrize(("tags", "tag"), TAGS.values(), ids=list(TAGS))
def test_the_most_frequent_tag(tags: object, tag: str | None) -> None:
    assert frequent_tag({"ss_tag_frequency": json.dumps(tags)}) == tag


def test_no_tags() -> None:
    assert frequent_tag({}) is None
    assert frequent_tag({"ss_tag_frequency": "not JSON"}) is None
