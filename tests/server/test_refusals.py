"""What is refused when a prompt is queued: HTTP 400 with node, input and words; nothing runs."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from graphs import form_graph
from mini_flux import loras
from runtime.client import Client, PromptRejectedError
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt
from flux_hotswap.prediction.spec import FIELDS, Kind

SMALL: dict[str, Any] = {"prompt": "a star", "aspect_ratio": "custom", "width": 256, "height": 256}
SMALL |= {"num_inference_steps": 1, "seed": 5, "disable_safety_checker": True}
FORM, SAFETY = "FluxHotswapInputs", "FluxHotswapSafety"
LORA, LOADER, SAVE = "FluxHotswapLora", "FluxHotswapLoader", "FluxHotswapSave"
CHECKER, EITHER = "disable_safety_checker", "give true or false"


def graph(name: str = "flux_lora_schema", **fields: Any) -> Prompt:
    """A shipped graph whose form has these values, as an API client writes them."""
    return form_graph({**SMALL, **fields}, name)


def node(prompt: Prompt, class_type: str) -> dict[str, Any]:
    return next(entry for entry in prompt.values() if entry["class_type"] == class_type)


def refused(client: Client, prompt: Prompt) -> dict[tuple[str, str], str]:
    """What the server refuses: class and input to our words. Nothing of the prompt was queued."""
    with pytest.raises(PromptRejectedError) as failed:
        client.run(prompt)
    queue = client.queue()
    assert not queue["queue_running"]
    assert not queue["queue_pending"]
    return {
        (prompt[key]["class_type"], error["extra_info"].get("input_name", "")): error["details"]
        for key, entry in failed.value.node_errors.items()
        for error in entry["errors"]
    }


def record(comfy: Comfy, prompt: Prompt) -> dict[str, Any]:
    (found,) = comfy.run(prompt).shown("flux_hotswap")
    return found


# --- what is refused, each on the one input that it is about ---

FORM_CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "text for a boolean": ({CHECKER: "false"}, CHECKER, EITHER),
    "No for a boolean": ({CHECKER: "No"}, CHECKER, EITHER),
    "0 for a boolean": ({CHECKER: "0"}, CHECKER, EITHER),
    "1 for a boolean": ({CHECKER: 1}, CHECKER, "1 is not allowed"),
    "object for a boolean": ({CHECKER: {"a": 1}}, CHECKER, EITHER),
    "list for a boolean": ({CHECKER: [True]}, CHECKER, EITHER),
    "text for go_fast": ({"go_fast": "false"}, "go_fast", "'false' is not allowed"),
    "2.7": (
        {"num_outputs": 2.7},
        "num_outputs",
        "2.7 is not allowed; give a whole number from 1 to 4",
    ),
    "true for a number": ({"num_outputs": True}, "num_outputs", "True is not allowed"),
    "text for a number": ({"lora_scale": "0.5"}, "lora_scale", "give a number from -1 to 3"),
    "number for a text": ({"prompt": 5}, "prompt", "prompt: 5 is not allowed; give text"),
    "list for a text": ({"lora": ["a", "b", "c"]}, "lora", "give text"),
    "too many": ({"num_outputs": 5}, "num_outputs", "give a whole number from 1 to 4"),
    "not in the list": ({"aspect_ratio": "1:2"}, "aspect_ratio", "'1:2' not in"),
    "unknown": ({"steps": 4}, "prompt", "steps: no such field; the fields are prompt, image"),
    "misspelt": (
        {"lora_wieghts": "a/b"},
        "lora",
        "lora_wieghts: no such field; did you mean lora_weights?",
    ),
    "another's case": ({"Num_Outputs": 2}, "num_outputs", "did you mean num_outputs?"),
    "twice": ({"lora": "a/b", "lora_weights": "c/d"}, "lora", "lora_weights: lora is given twice"),
    "no width": (
        {"width": None},
        "width",
        "is missing, and aspect_ratio is custom; give both width",
    ),
    "no prompt": ({"prompt": None}, "prompt", "prompt"),
    "mask alone": ({"mask": "mask.png"}, "mask", "needs an image"),
    "no such picture": (
        {"image": "nope.png"},
        "image",
        "nope.png is not in ComfyUI's input folder",
    ),
    "picture elsewhere": ({"image": "/etc/hostname"}, "image", "lies outside of ComfyUI's folders"),
    "LoRA text": ({"lora": "http://"}, "lora", "lora: 'http://': this is not a web address"),
    "second LoRA's text": ({"extra_lora": "a/b/c/d/e"}, "extra_lora", "extra_lora: 'a/b/c/d/e'"),
    "no such LoRA": (
        {"lora": "no/such.safetensors"},
        "lora",
        "such.safetensors is not in the loras folders",
    ),
    "second, not there": (
        {"extra_lora": "no.safetensors"},
        "extra_lora",
        "no.safetensors is not in",
    ),
}


@pytest.mark.parametrize(("fields", "name", "words"), FORM_CASES.values(), ids=FORM_CASES)
def test_the_form(comfy: Comfy, fields: dict[str, Any], name: str, words: str) -> None:
    found = refused(comfy.client, graph(**fields))
    assert list(found) == [(FORM, name)]
    assert words in found[FORM, name]


@pytest.mark.parametrize(
    ("class_type", "inputs", "name", "words"),
    [
        (SAFETY, {CHECKER: "false"}, CHECKER, EITHER),
        (LOADER, {"go_fast": "no"}, "go_fast", "give true or false"),
        ("FluxHotswapLatent", {"num_outputs": 2.5}, "num_outputs", "2.5 is not allowed"),
        (LORA, {"request": None, "source": "http://"}, "source", "not a web address"),
        (LORA, {"request": None, "source": "x.safetensors"}, "source", "is not in the"),
        (SAVE, {"filename_prefix": "../x"}, "filename_prefix", "'..' leaves the output"),
        (SAVE, {"filename_prefix": "a/" + "b" * 300}, "filename_prefix", "longer than"),
        (LOADER, {"dev_file": "gone.safetensors"}, "dev_file", "gone.safetensors is not in"),
        (LOADER, {"dev_file": "gone.safetensors"}, "dev_file", "black-forest-labs/FLUX.1-dev"),
        (
            LOADER,
            {"request": None, "model": "schnell", "schnell_file": "gone.safetensors"},
            "schnell_file",
            "download FLUX.1 schnell from https://huggingface.co/",
        ),
    ],
    ids=[
        "checker",
        "go_fast",
        "batch",
        "LoRA text",
        "LoRA file",
        "prefix",
        "long prefix",
        "model of the request",
        "where to get it",
        "model of its own",
    ],
)
def test_the_other_nodes(
    comfy: Comfy, class_type: str, inputs: dict[str, Any], name: str, words: str
) -> None:
    prompt = graph()
    own = node(prompt, class_type)["inputs"]
    own |= inputs
    if "request" in inputs:
        del own["request"]
    found = refused(comfy.client, prompt)
    assert list(found) == [(class_type, name)]
    assert words in found[class_type, name]


def test_every_mistake_is_named_at_once(comfy: Comfy) -> None:
    prompt = graph(num_outputs=9, lora_scale="1", go_fast="yes")
    node(prompt, SAVE)["inputs"]["filename_prefix"] = "/x"
    assert set(refused(comfy.client, prompt)) == {
        (FORM, "num_outputs"),
        (FORM, "lora_scale"),
        (FORM, "go_fast"),
        (SAVE, "filename_prefix"),
    }


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_no_field_takes_another_type(comfy: Comfy, field: Any) -> None:
    """Whatever the core would make of it: {} is no value of any field."""
    wrong: tuple[Any, ...] = ({}, {"__value__": "x"}) if field.kind is not Kind.ENUM else ({},)
    for value in wrong:
        assert (FORM, field.name) in refused(comfy.client, graph(**{field.name: value}))


def test_a_picture_that_no_latent_can_take(comfy: Comfy) -> None:
    comfy.client.upload("here.png", _png())
    prompt = graph("text_to_image", image="here.png")
    assert "connect a VAE" in refused(comfy.client, prompt)[FORM, "image"]


def test_a_checker_that_a_wire_switches_off_with_text(comfy: Comfy) -> None:
    """A text cannot reach the switch through a wire either."""
    prompt = graph(disable_safety_checker=["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "false"}}
    found = refused(comfy.client, prompt)
    assert set(found) == {(FORM, CHECKER)}


@pytest.mark.parametrize("prompt", [[], {"1": []}, {"1": {"class_type": FORM, "inputs": []}}, {}])
def test_what_is_no_prompt_is_left_to_comfyui(comfy: Comfy, prompt: Any) -> None:
    with pytest.raises(Exception, match=r"HTTP [45]\d\d|refused"):
        comfy.client.run(prompt)
    assert "on_prompt_handler processing" not in comfy.server.log_text()


# --- what a request means, the same everywhere ---


def test_null_is_not_given(comfy: Comfy) -> None:
    """Every field but the prompt and those that the size needs."""
    names = [field.name for field in FIELDS if field.name not in SMALL]
    nothing: dict[str, Any] = dict.fromkeys(names)
    found = record(comfy, graph(**nothing))
    assert (found["guidance"], found["loras"], found["num_outputs"]) == (3, [], 1)


def test_a_seed_of_null_is_drawn(comfy: Comfy) -> None:
    seeds = {record(comfy, graph(seed=None))["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_the_body_of_a_hosted_call(comfy: Comfy) -> None:
    prompt = graph()
    prompt["1"]["inputs"] = {"input": {**SMALL, "seed": 77}, "version": "abc"}
    assert record(comfy, prompt)["seed"] == 77


@pytest.mark.parametrize("name", ["lora_weights", "replicate_weights"])
def test_the_other_names_of_the_lora(comfy: Comfy, name: str) -> None:
    state = loras.diffusers(loras.blocks())
    loras.write(state, comfy.server.models_dir / "loras" / "alias.safetensors")
    (lora,) = record(comfy, graph(**{name: "alias.safetensors"}))["loras"]
    assert lora["file"] == "alias.safetensors"


@pytest.mark.parametrize("lora", ["no-such.safetensors", "owner/name"])
def test_a_lora_of_no_strength_need_not_be_there(comfy: Comfy, lora: str) -> None:
    found = record(comfy, graph(lora=lora, lora_scale=0, extra_lora=lora, extra_lora_scale=0.0))
    assert found["loras"] == []


def test_a_whole_number_with_a_point(comfy: Comfy) -> None:
    assert record(comfy, graph(num_outputs=2.0))["num_outputs"] == 2


def test_the_model_that_is_not_asked_for_may_be_missing(comfy: Comfy) -> None:
    prompt = graph()
    node(prompt, LOADER)["inputs"]["schnell_file"] = "gone.safetensors"
    assert record(comfy, prompt)["model"] == "dev"


# --- where nothing can be fetched ---


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that may fetch nothing and has no safety files."""
    base = tmp_path_factory.mktemp("offline")
    models = base / "models"
    models.mkdir()
    for folder in small_models().iterdir():
        if folder.is_dir() and folder.name != "safety_checker":
            shutil.copytree(folder, models / folder.name)
    env = {"FLUX_HOTSWAP_OFFLINE": "1"}
    with ComfyServer(find_comfyui(), models=models, env=env) as server:
        yield Client(server.url)


OFFLINE: Mapping[str, tuple[dict[str, Any], str, str, str]] = {
    "safety files": (
        {CHECKER: False},
        SAFETY,
        "checker",
        "hosted checker are missing (compvis, falcon)",
    ),
    "LoRA": ({"lora": "owner/name"}, FORM, "lora", "FLUX_HOTSWAP_OFFLINE lets nothing be fetched"),
}


@pytest.mark.parametrize(("fields", "kind", "name", "words"), OFFLINE.values(), ids=OFFLINE)
def test_offline(offline: Client, fields: dict[str, Any], kind: str, name: str, words: str) -> None:
    found = refused(offline, graph(**fields))
    assert list(found) == [(kind, name)]
    assert words in found[kind, name]


def test_offline_with_a_lora_that_is_the_text_itself(offline: Client) -> None:
    data = loras.as_bytes(loras.diffusers(loras.blocks()))
    uri = "data:;base64," + base64.b64encode(data).decode()
    (found,) = offline.run(graph(lora=uri)).shown("flux_hotswap")
    assert len(found["loras"]) == 1


def test_offline_without_the_checker(offline: Client) -> None:
    (found,) = offline.run(graph()).shown("flux_hotswap")
    assert found["safety"]["checker"] == "off"


def _png() -> bytes:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    return buffer.getvalue()
