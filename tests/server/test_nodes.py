"""The pack's nodes as a client of ComfyUI meets them: schema, refusals, caching."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runtime.client import ExecutionError, PromptRejectedError
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt, fill_prompt
from flux_hotswap.tools.nodes_info import read_nodes

DATA = Path(__file__).parent.parent / "data" / "object_info.json"
WORKFLOWS = Path(__file__).parent.parent.parent / "workflows" / "api"
OURS = "FluxHotswap"
FAST = {"prompt": "a cat", "aspect_ratio": "custom", "width": 256, "height": 256}
FAST |= {"num_inference_steps": 1, "seed": 7}
SMALL_PRESET = {"prompt": "a cat", "megapixels": "0.25", "num_inference_steps": 1, "seed": 5}


def load(name: str) -> Prompt:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def node_id(prompt: Prompt, class_type: str) -> str:
    return next(key for key, node in prompt.items() if node["class_type"] == class_type)


def fast_prompt(name: str = "flux_lora_schema", **fields: Any) -> Prompt:
    return fill_prompt(load(name), FAST | fields)


def latent_only(prompt: Prompt) -> Prompt:
    """Return prompt with its pictures replaced by their latent: no time goes into the VAE."""
    kept = {
        key: node
        for key, node in prompt.items()
        if node["class_type"] not in ("VAEDecode", "FluxHotswapSave")
    }
    sampled = [node_id(kept, "SamplerCustomAdvanced"), 0]
    inputs = {"latent": sampled, "filename": "latent_only"}
    return kept | {"latent": {"class_type": "TestSaveTensor", "inputs": inputs}}


def picture_bytes(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


# --- the schema ---------------------------------------------------------------------------------


def test_object_info_is_as_recorded(comfy: Comfy) -> None:
    """Ids, inputs, order, types and defaults are a promise to saved workflows."""
    live = {name: entry for name, entry in comfy.client.object_info().items() if OURS in name}
    recorded = json.loads(DATA.read_text(encoding="utf-8"))
    if os.environ.get("FLUX_HOTSWAP_UPDATE"):
        core = comfy.client.object_info()
        updated = {name: core[name] for name in sorted({*recorded, *live})}
        text = json.dumps(updated, indent=1, ensure_ascii=False) + "\n"
        DATA.write_text(text, encoding="utf-8", newline="\n")
        recorded = updated
    ours = {name: entry for name, entry in recorded.items() if OURS in name}
    assert sorted(live) == sorted(ours)
    for name, entry in ours.items():
        assert public(live[name]) == public(entry), name


def public(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a saved workflow or an API client depends on."""
    inputs = {
        group: {name: stable(spec) for name, spec in entry["input"].get(group, {}).items()}
        for group in ("required", "optional")
    }
    kept = ("output", "output_name", "output_is_list", "output_node", "category", "display_name")
    return {"input": inputs, "input_order": entry["input_order"]} | {
        key: entry[key] for key in kept
    }


def stable(spec: list[Any]) -> list[Any]:
    kind, options = spec[0], dict(spec[1])
    # Versions differ in which empty options they list, and a tooltip is no promise.
    kept = ("default", "min", "max", "step", "options", "multiline", "forceInput")
    return [kind, {key: options[key] for key in kept if options.get(key) is not None}]


def test_every_input_has_a_tooltip(comfy: Comfy) -> None:
    bare = [
        f"{name}.{key}"
        for name, entry in comfy.client.object_info().items()
        if OURS in name
        for group in ("required", "optional")
        for key, spec in entry["input"].get(group, {}).items()
        if not spec[1].get("tooltip")
    ]
    assert bare == []


# --- refusals before anything runs --------------------------------------------------------------

BAD_VALUES: dict[str, tuple[str, str, Any]] = {
    "enum": ("FluxHotswapInputs", "aspect_ratio", "1:2"),
    "enum of another node": ("FluxHotswapNoise", "source", "gpu"),
    "megapixels as number": ("FluxHotswapInputs", "megapixels", 1),
    "above the range": ("FluxHotswapInputs", "num_outputs", 5),
    "below the range": ("FluxHotswapInputs", "num_inference_steps", 0),
    "negative seed": ("FluxHotswapInputs", "seed", -1),
    "seed past 64 bits": ("FluxHotswapInputs", "seed", 2**64),
    "nan": ("FluxHotswapInputs", "guidance_scale", float("nan")),
    "nan of another node": ("FluxHotswapSchedule", "prompt_strength", float("nan")),
    "infinity": ("FluxHotswapInputs", "lora_scale", float("inf")),
    "minus infinity": ("FluxHotswapInputs", "lora_scale", float("-inf")),
    "no number": ("FluxHotswapInputs", "seed", "abc"),
    "format": ("FluxHotswapInputs", "output_format", "gif"),
    "quality": ("FluxHotswapSave", "output_quality", 101),
    "width": ("FluxHotswapInputs", "width", 1441),
    "height": ("FluxHotswapInputs", "height", 255),
}


@pytest.mark.parametrize(("class_type", "name", "value"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_refused_by_name(
    comfy: Comfy, class_type: str, name: str, value: Any
) -> None:
    prompt = fast_prompt()
    bad = node_id(prompt, class_type)
    prompt[bad]["inputs"][name] = value
    with pytest.raises(PromptRejectedError) as refused:
        comfy.run(prompt)
    assert_refused(refused.value, bad, name)


def assert_refused(refused: PromptRejectedError, node: str, name: str) -> None:
    """The error stands at this input of this node alone."""
    found = {
        (key, error["extra_info"]["input_name"])
        for key, entry in refused.node_errors.items()
        for error in entry["errors"]
    }
    assert found == {(node, name)}


def test_custom_without_a_side_is_refused(comfy: Comfy) -> None:
    prompt = fast_prompt()
    inputs = prompt[node_id(prompt, "FluxHotswapInputs")]["inputs"]
    del inputs["height"]
    with pytest.raises(PromptRejectedError, match="height: is missing, and aspect_ratio is custom"):
        comfy.run(prompt)


def test_a_missing_prompt_is_refused(comfy: Comfy) -> None:
    prompt = fast_prompt()
    del prompt[node_id(prompt, "FluxHotswapInputs")]["inputs"]["prompt"]
    with pytest.raises(PromptRejectedError, match="required_input_missing"):
        comfy.run(prompt)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "nope.png"}, "nope.png is not in ComfyUI's input folder"),
        ({"image": "x" * 300 + ".png"}, r"image: x{57}\.\.\. is not in ComfyUI's input folder"),
        ({"image": "../../secret.png"}, "lies outside of ComfyUI's folders"),
        ({"image": "/etc/hostname"}, "lies outside of ComfyUI's folders"),
        ({"image": "data:image/png;base64,@@@"}, "broken base64"),
    ],
    ids=["missing", "longer than any", "traversal", "absolute", "broken data URI"],
)
def test_a_picture_that_cannot_be_had_is_refused(
    comfy: Comfy, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptRejectedError, match=message):
        comfy.run(fast_prompt(**fields))


def test_a_mask_without_an_image_is_refused(comfy: Comfy) -> None:
    prompt = fast_prompt()
    prompt[node_id(prompt, "FluxHotswapInputs")]["inputs"]["mask"] = "mask.png"
    with pytest.raises(PromptRejectedError, match="mask: needs an image"):
        comfy.run(prompt)


# --- models that are not there ------------------------------------------------------------------


MISSING = {
    "dev": "flux1-dev-missing.safetensors",
    "schnell": "flux1-schnell-missing.safetensors",
}
PAGES = {"dev": "black-forest-labs/FLUX.1-dev", "schnell": "Comfy-Org/flux1-schnell"}


def assert_says_where_to_get_it(text: str, model: str) -> None:
    assert f"{MISSING[model]} is not in" in text
    assert "diffusion_models" in text
    assert f"huggingface.co/{PAGES[model]}" in text


@pytest.mark.parametrize("model", MISSING)
def test_a_missing_model_says_where_to_get_it(comfy: Comfy, model: str) -> None:
    prompt = fast_prompt(model=model)
    loader = node_id(prompt, "FluxHotswapLoader")
    prompt[loader]["inputs"][f"{model}_file"] = MISSING[model]
    with pytest.raises(PromptRejectedError) as refused:
        comfy.run(prompt)
    assert_refused(refused.value, loader, f"{model}_file")
    assert_says_where_to_get_it(str(refused.value.node_errors), model)


@pytest.mark.parametrize("model", MISSING)
def test_a_missing_model_of_a_loader_alone_is_refused(comfy: Comfy, model: str) -> None:
    prompt = fast_prompt()
    loader = node_id(prompt, "FluxHotswapLoader")
    del prompt[loader]["inputs"]["request"]
    prompt[loader]["inputs"] |= {"model": model, f"{model}_file": MISSING[model]}
    with pytest.raises(PromptRejectedError) as refused:
        comfy.run(prompt)
    assert_refused(refused.value, loader, f"{model}_file")
    assert_says_where_to_get_it(str(refused.value.node_errors), model)


def test_a_missing_model_that_shows_only_in_the_run(comfy: Comfy) -> None:
    """Which model it is comes through a wire."""
    prompt = fast_prompt()
    loader = prompt[node_id(prompt, "FluxHotswapLoader")]["inputs"]
    request = loader.pop("request")
    fields = {"class_type": "FluxHotswapFields", "inputs": {"request": request}}
    model = ["fields", read_nodes()["FluxHotswapFields"].output("model")]
    loader |= {"model": model, "dev_file": MISSING["dev"]}
    comfy.expect_traceback(MISSING["dev"])
    with pytest.raises(ExecutionError) as failed:
        comfy.run(prompt | {"fields": fields})
    assert failed.value.node_type == "FluxHotswapLoader"
    assert_says_where_to_get_it(failed.value.message, "dev")


def test_the_model_that_is_not_asked_for_may_be_missing(comfy: Comfy) -> None:
    prompt = latent_only(fast_prompt(seed=9))
    loader = prompt[node_id(prompt, "FluxHotswapLoader")]["inputs"]
    loader["schnell_file"] = "gone.safetensors"
    (plan,) = comfy.run(prompt).shown("flux_hotswap_plan")
    assert plan["model"] == "dev"


def test_another_architecture_is_refused(comfy: Comfy) -> None:
    """A text encoder in the folder for diffusion models is not taken for FLUX."""
    folder = comfy.server.models_dir / "diffusion_models"
    wrong = folder / "not_flux.safetensors"
    wrong.write_bytes((comfy.models / "text_encoders" / "clip_l.safetensors").read_bytes())
    comfy.expect_traceback("not_flux.safetensors")
    comfy.expect_traceback("its tensors are those of another model")
    try:
        prompt = fast_prompt()
        prompt[node_id(prompt, "FluxHotswapLoader")]["inputs"]["dev_file"] = wrong.name
        with pytest.raises(ExecutionError, match=r"does not hold a FLUX\.1 model"):
            comfy.run(prompt)
    finally:
        wrong.unlink()


# --- what a run reports, and what a second one does ----------------------------------------------


def test_a_drawn_seed_is_reported_and_drawn_anew(comfy: Comfy) -> None:
    prompt = latent_only(fast_prompt(seed=None))
    assert "seed" not in prompt[node_id(prompt, "FluxHotswapInputs")]["inputs"]
    seeds = {comfy.run(prompt).shown("flux_hotswap_plan")[0]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_same_request_again_runs_nothing(comfy: Comfy) -> None:
    prompt = latent_only(fast_prompt(seed=11))
    assert comfy.run(prompt).executed_nodes
    assert not comfy.run(prompt).executed_nodes


def test_a_new_seed_runs_only_what_depends_on_it(comfy: Comfy) -> None:
    comfy.run(latent_only(fast_prompt(seed=21)))
    prompt = latent_only(fast_prompt(seed=22))
    ran = {prompt[node]["class_type"] for node in comfy.run(prompt).executed_nodes}
    assert "DualCLIPLoader" not in ran
    assert {"FluxHotswapInputs", "FluxHotswapNoise", "SamplerCustomAdvanced"} <= ran


def test_the_loader_takes_the_planned_route(comfy: Comfy) -> None:
    result = comfy.run(fill_prompt(load("text_to_image"), SMALL_PRESET))
    (planned,), (done,) = result.shown("flux_hotswap_plan"), result.shown("flux_hotswap")
    assert (planned["route"], planned["route_reason"]) == ("fast", "go_fast")
    assert (done["engine"], done["engine_reason"]) == ("int8 storage", "CPU has no int8 matmul")


def test_an_input_picture_that_changes_is_read_again(comfy: Comfy) -> None:
    prompt = latent_only(fast_prompt(image="changing.png", prompt_strength=1, seed=4))
    comfy.client.upload("changing.png", picture_bytes("red"))
    comfy.run(prompt)
    assert not comfy.run(prompt).executed_nodes
    comfy.client.upload("changing.png", picture_bytes("blue"))
    assert comfy.run(prompt).executed_nodes


@pytest.fixture(autouse=True)
def the_queue_goes_on(comfy: Comfy) -> Iterator[None]:
    """Whatever a test did, the server still answers and holds nothing back."""
    yield
    queue = comfy.client.queue()
    assert not queue["queue_running"]
    assert not queue["queue_pending"]
