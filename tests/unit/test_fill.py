"""Filling the shipped prompts with a request."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.errors import RequestError
from flux_hotswap.prediction.fill import fill_prompt, workflow_for
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
    from flux_hotswap.prediction.spec import FIELDS

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
