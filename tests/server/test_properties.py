"""Requests of all kinds through a real server: valid ones draw, others are refused by name."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from runtime.client import PromptRejectedError
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt, fill_prompt
from flux_hotswap.prediction.plan import make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.spec import FIELD, FIELDS, Field, Kind

SCHEMA = Path(__file__).parent.parent.parent / "workflows" / "api" / "flux_lora_schema.json"
PICTURES = {"wide.png": (200, 90), "tall.png": (60, 130), "tiny.png": (3, 5)}
MASKS = ("mask.png", "black.png")

# A real server takes seconds for a picture: few examples, none tried again to shrink a failure.
ON_A_SERVER = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


@pytest.fixture(scope="module", autouse=True)
def pictures(comfy: Comfy) -> None:
    random = np.random.default_rng(5)
    for name, (width, height) in PICTURES.items():
        upload(comfy, name, random.integers(0, 256, (height, width, 3), np.uint8))
    upload(comfy, "mask.png", random.integers(0, 2, (32, 32), np.uint8) * 255)
    upload(comfy, "black.png", np.zeros((32, 32), np.uint8))


def upload(comfy: Comfy, name: str, pixels: np.ndarray) -> None:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert comfy.client.upload(name, buffer.getvalue()) == name


def schema_prompt() -> Prompt:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


# --- valid --------------------------------------------------------------------------------------

SMALL = st.integers(256, 330)
COMMON = {
    "prompt": st.text(max_size=40),
    "model": st.sampled_from(FIELD["model"].choices),
    "num_inference_steps": st.integers(1, 4),
    "num_outputs": st.integers(1, 2),
    "guidance_scale": st.floats(0, 10),
    "seed": st.none() | st.integers(0, 2**64 - 1),
    "output_format": st.sampled_from(FIELD["output_format"].choices),
    "output_quality": st.integers(0, 100),
    "go_fast": st.booleans(),
    "lora_scale": st.floats(-1, 3),
}
SIZES = {"aspect_ratio": st.just("custom"), "width": SMALL, "height": SMALL}
PICTURE = {"image": st.sampled_from(list(PICTURES)), "prompt_strength": st.floats(0, 1)}
MODES = {
    "txt2img": st.fixed_dictionaries(COMMON | SIZES),
    "img2img": st.fixed_dictionaries(COMMON | PICTURE),
    "inpaint": st.fixed_dictionaries(COMMON | PICTURE | {"mask": st.sampled_from(MASKS)}),
}


@pytest.mark.parametrize("mode", MODES)
def test_valid_requests_draw(comfy: Comfy, mode: str) -> None:
    @settings(ON_A_SERVER, max_examples=5)
    @given(request=MODES[mode])
    def draws(request: dict[str, Any]) -> None:
        result = comfy.run(fill_prompt(schema_prompt(), request))
        plan = result.shown("flux_hotswap_plan")[0]
        expected = make_plan(
            parse_request(request),
            seed=plan["seed"],
            image=PICTURES.get(request.get("image", "")),
            mask="mask" in request,
        )
        assert plan["mode"] == mode
        assert (plan["width"], plan["height"]) == expected.size
        assert tuple(plan["sigmas"]) == expected.sigmas
        files = [BytesIO(comfy.client.view(entry)) for entry in result.images()]
        assert [Image.open(file).size for file in files] == [expected.size] * len(files)
        assert len(files) == request["num_outputs"]

    draws()


# --- invalid ------------------------------------------------------------------------------------


def wrong_values(field: Field) -> st.SearchStrategy[Any]:
    """Return values that a field refuses, also those that ComfyUI would convert on the quiet."""
    if field.kind is Kind.ENUM:
        return st.text(max_size=8).filter(lambda text: text not in field.choices)
    assert field.minimum is not None
    assert field.maximum is not None
    low, high = field.minimum, field.maximum
    if field.kind is Kind.INTEGER:
        outside = st.integers(max_value=int(low) - 1) | st.integers(min_value=int(high) + 1)
        numbers = outside | st.just(low + 0.5)
    else:
        below = st.floats(max_value=low, exclude_max=True)
        numbers = below | st.floats(min_value=high, exclude_min=True) | st.just(float("nan"))
    return numbers | st.sampled_from(["", "many", [], {}, True, str(low)])


CHECKED = [field for field in FIELDS if field.kind in (Kind.ENUM, Kind.INTEGER, Kind.NUMBER)]
WRONG = st.sampled_from(CHECKED).flatmap(
    lambda field: st.tuples(st.just(field.name), wrong_values(field))
)


@settings(ON_A_SERVER, max_examples=150)
@given(wrong=WRONG)
def test_invalid_requests_are_refused_by_name(comfy: Comfy, wrong: tuple[str, Any]) -> None:
    name, value = wrong
    prompt = fill_prompt(schema_prompt(), {"prompt": "a", "aspect_ratio": "custom", **SQUARE})
    inputs = next(key for key in prompt if prompt[key]["class_type"] == "FluxHotswapInputs")
    prompt[inputs]["inputs"][name] = value
    with pytest.raises(PromptRejectedError) as refused:
        comfy.run(prompt)
    errors = refused.value.node_errors[inputs]["errors"]
    assert name in {error["extra_info"]["input_name"] for error in errors}


SQUARE = {"width": 256, "height": 256}


def test_the_server_serves_on(comfy: Comfy) -> None:
    prompt = fill_prompt(schema_prompt(), {"prompt": "a", "aspect_ratio": "custom", **SQUARE})
    assert comfy.run(prompt).images()
