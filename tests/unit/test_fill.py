"""Filling the shipped prompts with a request."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.errors import RequestError
from flux_hotswap.prediction.fill import fill_prompt, is_link, save_as, workflow_for
from flux_hotswap.prediction.spec import FIELDS, Field
from flux_hotswap.tools.graph import Graph, Prompt
from flux_hotswap.tools.nodes_info import read_nodes
from flux_hotswap.tools.workflows import built

FOLDER = Path(__file__).parent.parent.parent / "workflows"


def load(name: str) -> Prompt:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def inputs(prompt: Prompt) -> dict[str, Any]:
    return next(n["inputs"] for n in prompt.values() if n["class_type"] == "FluxHotswapInputs")


def test_only_what_is_given_is_written() -> None:
    prompt = load("text_to_image")
    before = copy.deepcopy(prompt)
    filled = fill_prompt(prompt, {"prompt": "a", "seed": None, "model": "schnell"})
    assert "seed" not in inputs(filled)
    assert inputs(filled)["prompt"] == "a"
    assert inputs(filled)["model"] == "schnell"
    assert prompt == before


def test_an_alias_becomes_the_field() -> None:
    filled = fill_prompt(load("text_to_image"), {"prompt": "a", "lora_weights": "b/c"})
    assert inputs(filled)["lora"] == "b/c"


def test_other_nodes_stay_as_they_are() -> None:
    prompt = load("inpaint")
    filled = fill_prompt(prompt, {"prompt": "a"})
    changed = [key for key in prompt if prompt[key] != filled[key]]
    assert [prompt[key]["class_type"] for key in changed] == ["FluxHotswapInputs"]


def test_a_connected_picture_stays_until_one_is_named() -> None:
    kept = inputs(fill_prompt(load("inpaint"), {"prompt": "a"}))
    assert {"input_image", "input_mask"} <= kept.keys()
    named = inputs(fill_prompt(load("inpaint"), {"prompt": "a", "image": "b.png"}))
    assert "input_image" not in named
    assert named["image"] == "b.png"


CONNECTED: dict[str, dict[str, Any]] = {
    "mask": {"mask": "m.png"},
    "no size": {"aspect_ratio": "custom"},
    "one side": {"aspect_ratio": "custom", "width": 512},
}


@pytest.mark.parametrize("fields", CONNECTED.values(), ids=CONNECTED)
def test_a_connected_picture_counts_as_one(fields: dict[str, Any]) -> None:
    """It allows what an image allows; what the request names takes the place of its own wire."""
    filled = inputs(fill_prompt(load("inpaint"), {"prompt": "a", **fields}))
    assert filled.items() >= {"prompt": "a", **fields}.items()
    assert "input_image" in filled
    assert ("input_mask" in filled) != ("mask" in fields)


REQUEST: dict[str, Any] = {field.name: field.choices[-1] for field in FIELDS if field.choices}
REQUEST |= {"prompt": "a", "image": "b.png", "mask": "m.png", "lora": "b/c", "extra_lora": "d/e"}
REQUEST |= {"height": 256, "width": 512, "prompt_strength": 0.5, "num_outputs": 2, "seed": 7}
REQUEST |= {"num_inference_steps": 3, "guidance_scale": 2, "output_quality": 50, "lora_scale": 0.5}
REQUEST |= {"disable_safety_checker": True, "go_fast": False, "extra_lora_scale": 0.25}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_request_wins_over_what_a_field_is_connected_to(field: Field) -> None:
    prompt = load("flux_lora_schema")
    inputs(prompt)[field.name] = ["99", 0]
    assert inputs(fill_prompt(prompt, REQUEST))[field.name] == REQUEST[field.name]
    left_out = inputs(fill_prompt(prompt, {"prompt": "a"}))
    assert left_out.get(field.name) in ("a" if field.required else field.default, None)


@pytest.mark.parametrize("value", [["99", 0], 1.25], ids=["connected", "set"])
def test_what_is_no_field_stays(value: Any) -> None:
    prompt = load("flux_lora_schema")
    every = {entry.name for entry in read_nodes()["FluxHotswapInputs"].inputs}
    beside = dict.fromkeys(every - {field.name for field in FIELDS}, value)
    inputs(prompt).update(beside)
    assert len(beside) == 4
    filled = inputs(fill_prompt(prompt, {"prompt": "a"}))
    assert {name: filled[name] for name in beside} == beside


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "a", "image": "b.png"}, "image: this workflow takes no input picture"),
        ({"prompt": "a", "mask": "b.png"}, "mask: needs an image"),
        ({"prompt": "a", "aspect_ratio": "custom"}, "width: is missing"),
        ({}, "prompt: is missing"),
    ],
    ids=["picture", "mask alone", "no size", "empty"],
)
def test_what_the_workflow_cannot_do_is_refused(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fill_prompt(load("text_to_image"), request_)


@pytest.mark.parametrize(
    ("request_", "name"),
    [({"prompt": "a"}, "text_to_image"), ({"prompt": "a", "image": "b"}, "flux_lora_schema")],
)
def test_the_workflow_fits_the_request(request_: dict[str, Any], name: str) -> None:
    assert workflow_for(request_) == name
    fill_prompt(load(name), request_)


def test_every_field_is_an_input_of_one_node() -> None:
    assert {field.name for field in FIELDS} <= inputs(load("flux_lora_schema")).keys()


def test_the_files_are_what_the_builder_writes() -> None:
    for name, text in built(read_nodes()).items():
        assert (FOLDER.parent / name).read_text(encoding="utf-8") == text, name


def test_the_editor_accepts_the_ids() -> None:
    for path in FOLDER.glob("*.json"):
        uuid.UUID(json.loads(path.read_text(encoding="utf-8"))["id"])


def test_the_builder_refuses_what_does_not_fit() -> None:
    graph = Graph(read_nodes())
    vae = graph.add("VAELoader")
    with pytest.raises(KeyError, match="has no input sample"):
        graph.add("VAEDecode", sample=vae["VAE"])
    with pytest.raises(KeyError, match="has no output MODEL"):
        vae["MODEL"]
    with pytest.raises(ValueError, match="takes LATENT, not VAE"):
        graph.add("VAEDecode", samples=vae["VAE"], vae=vae["VAE"])
    with pytest.raises(ValueError, match="samples needs a wire"):
        graph.add("VAEDecode", vae=vae["VAE"])


def test_each_picture_is_saved_below_a_prefix() -> None:
    prompt = load("flux_lora_schema")
    (saver,) = save_as(prompt, "mine/1")
    assert prompt[saver]["inputs"]["filename_prefix"] == "mine/1"
    assert save_as({"1": {"class_type": "SaveImage", "inputs": {}}}, "x") == []


@pytest.mark.parametrize(
    ("value", "wire"),
    [(["4", 0], True), (["4", 0.0], True), (["4"], False), ([4, 0], False), ("4", False)],
    ids=str,
)
def test_wires(value: object, wire: bool) -> None:
    assert is_link(value) is wire
