"""What a plan says beyond its numbers: the route's reason, warnings, seed and LoRA strengths."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from flux_hotswap.errors import HotswapError, MissingFileError, RequestError
from flux_hotswap.prediction.plan import Lora, Plan, Strengths, lora_of, make_plan
from flux_hotswap.prediction.request import parse_request


def planned(raw: dict[str, Any], image: tuple[int, int] | None = None, **options: Any) -> Plan:
    return make_plan(parse_request({"prompt": "a cat", **raw}), seed=7, image=image, **options)


@pytest.mark.parametrize(
    ("raw", "image", "route", "reason"),
    [
        ({}, None, "fast", "go_fast"),
        ({"go_fast": False}, None, "bf16", "go_fast off"),
        ({}, (64, 64), "bf16", "image input"),
        ({"go_fast": False}, (64, 64), "bf16", "go_fast off"),
        ({"aspect_ratio": "custom", "width": 512, "height": 512}, None, "bf16", "custom size"),
        ({"aspect_ratio": "custom"}, (64, 64), "bf16", "image input"),
        ({"model": "schnell", "num_outputs": 4}, None, "fast", "go_fast"),
    ],
)
def test_route(raw: dict[str, Any], image: tuple[int, int] | None, route: str, reason: str) -> None:
    plan = planned(raw, image)
    assert (plan.route, plan.route_reason) == (route, reason)


@pytest.mark.parametrize(
    ("raw", "image", "fragments"),
    [
        ({}, None, []),
        ({}, (64, 64), []),
        ({"model": "schnell", "num_inference_steps": 4}, None, []),
        ({"aspect_ratio": "custom", "width": 512, "height": 512}, None, []),
        ({"megapixels": "0.25"}, None, []),
        ({"width": 300}, None, ["width: ignored, aspect_ratio is not custom"]),
        ({"width": 300, "height": 300}, None, ["width and height: ignored"]),
        (
            {"aspect_ratio": "custom", "width": 257, "height": 512},
            None,
            ["width and height: 257x512 is rounded to 256x512"],
        ),
        (
            {"aspect_ratio": "custom", "width": 264, "height": 512, "megapixels": "0.25"},
            None,
            ["264x512 is rounded to 272x512", "megapixels: ignored, aspect_ratio is custom"],
        ),
        (
            {"aspect_ratio": "9:21", "megapixels": "0.25", "width": 300},
            (64, 64),
            ["aspect_ratio, megapixels, width: ignored, the image sets the size"],
        ),
        ({"model": "schnell"}, None, ["num_inference_steps: schnell needs only 4 steps, 28 run"]),
        ({"prompt_strength": 0.97}, (64, 64), ["prompt_strength: 0.97 of 28 steps"]),
        ({"prompt_strength": 0}, (64, 64), ["prompt_strength: 0 runs no step"]),
        (
            {"model": "schnell", "num_inference_steps": 5, "prompt_strength": 1},
            (64, 64),
            ["prompt_strength: 1 of 5 steps", "num_inference_steps: schnell needs"],
        ),
    ],
)
def test_warnings(raw: dict[str, Any], image: tuple[int, int] | None, fragments: list[str]) -> None:
    warnings = planned(raw, image).warnings
    assert len(warnings) == len(fragments)
    for warning, fragment in zip(warnings, fragments, strict=True):
        assert fragment in warning


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        ({"aspect_ratio": "custom"}, "width"),
        ({"aspect_ratio": "custom", "height": 512}, "width"),
        ({"aspect_ratio": "custom", "width": 512}, "height"),
    ],
)
def test_custom_without_a_side(raw: dict[str, Any], missing: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned(raw)
    assert caught.value.field == missing
    assert "width and height" in str(caught.value)
    assert planned(raw, (100, 50)).size == (112, 64)


@pytest.mark.parametrize(("given", "used"), [(None, 7), (0, 0), (42, 42), (2**64 - 1, 2**64 - 1)])
def test_seed(given: int | None, used: int) -> None:
    assert planned({"seed": given}).seed == used


LORAS = {"lora": "M", "lora_scale": 0.8, "extra_lora": "E", "extra_lora_scale": -0.5}


@pytest.mark.parametrize(
    ("raw", "multiplier", "strengths"),
    [
        (LORAS, 1.5, [1.2, -0.75]),
        (LORAS, 1.0, [0.8, -0.5]),
        (LORAS, 2.0, [1.6, -1.0]),
        (LORAS | {"go_fast": False}, 2.0, [0.8, -0.5]),
        (LORAS | {"extra_lora": "M"}, 1.0, [0.8, -0.5]),
        (LORAS | {"lora": ""}, 1.5, [-0.75]),
        (LORAS | {"lora_scale": 0}, 1.5, [0, -0.75]),
    ],
)
def test_multiplier(raw: dict[str, Any], multiplier: float, strengths: list[float]) -> None:
    plan = planned(raw, strengths=Strengths(multiplier))
    assert [lora.strength for lora in plan.loras] == pytest.approx(strengths)
    assert [lora.field for lora in plan.loras] == ["lora", "extra_lora"][-len(strengths) :]


@pytest.mark.parametrize(
    ("scale", "route", "multiplier", "strength", "reckoning"),
    [
        (0.8, "bf16", 1.5, 0.8, "0.8"),
        (-1, "bf16", 2.0, -1, "-1"),
        (0.5, "fast", 1.5, 0.75, "0.75 (0.5 times 1.5 with go_fast)"),
        (2, "fast", 2.0, 4, "4 (2 times 2 with go_fast)"),
        (2, "fast", 1.0, 2, "2"),
        (0, "fast", 1.5, 0, "0 (0 times 1.5 with go_fast)"),
    ],
)
def test_a_strength_says_how_it_came_about(
    scale: float, route: str, multiplier: float, strength: float, reckoning: str
) -> None:
    lora = lora_of("a/b", scale, route, Strengths(multiplier))
    assert (lora.source, lora.scale, lora.strength) == ("a/b", scale, strength)
    assert lora.reckoning == reckoning
    assert Lora("a/b", strength, strength).reckoning == f"{strength:g}"


@pytest.mark.parametrize(
    ("raw", "drawn"),
    [
        ({"seed": 2**32 - 2}, 2**32 - 2),
        ({"seed": 2**32 - 1}, 0),
        ({"seed": 2**40 + 5}, 2**8 + 5),
        ({"seed": 2**40 + 5, "go_fast": False}, 2**40 + 5),
    ],
    ids=["largest", "one more", "large", "bf16"],
)
def test_go_fast_knows_fewer_seeds(raw: dict[str, Any], drawn: int) -> None:
    plan = planned(raw)
    assert (plan.seed, plan.noise_seed) == (raw["seed"], drawn)


BOTH = {"lora": "a", "lora_scale": 0.5, "extra_lora": "b", "extra_lora_scale": 0.8}


@pytest.mark.parametrize(
    ("arrival", "merged"),
    [
        ("hosted", ["0.75 (0.5 times 1.5 with go_fast)", "0.8"]),
        ("whole", ["0.75 (0.5 times 1.5 with go_fast)", "1.2 (0.8 times 1.5 with go_fast)"]),
    ],
)
def test_engine_fp8_merges_the_extra_lora_without_the_multiplier(
    arrival: str, merged: list[str]
) -> None:
    loras = planned(BOTH, strengths=Strengths(arrival=arrival)).loras
    assert [lora.merged.reckoning for lora in loras] == merged
    assert [lora.strength for lora in loras] == [0.75, pytest.approx(1.2)]


def test_output_fields() -> None:
    plan = planned({"output_format": "jpg", "output_quality": 0, "disable_safety_checker": True})
    assert (plan.output_format, plan.output_quality, plan.safety_checker) == ("jpg", 0, False)


def test_plan_is_frozen_and_repeatable() -> None:
    assert planned(LORAS) == planned(LORAS)
    plan = planned(LORAS)
    for part, name in ((plan, "seed"), (plan.loras[0], "strength"), (Strengths(), "arrival")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)


def test_a_plan_is_made_by_names() -> None:
    """Many of its values are of one type, and in another order they would mean something else."""
    plan: Any = Plan
    values = {field.name: getattr(planned({}), field.name) for field in fields(Plan)}
    assert plan(**values) == planned({})
    with pytest.raises(TypeError, match="positional"):
        plan(*values.values())


def test_what_a_plan_is_made_from_has_names() -> None:
    make: Any = make_plan
    request = parse_request({"prompt": "a cat"})
    assert make(request=request, seed=7) == planned({})
    with pytest.raises(TypeError, match="positional"):
        make(request, 7)


def test_missing_file_error_names_the_file() -> None:
    error = MissingFileError("ae.safetensors", "put ae.safetensors into models/vae")
    assert isinstance(error, HotswapError)
    assert isinstance(error, FileNotFoundError)
    assert error.filename == "ae.safetensors"
    assert str(error) == "put ae.safetensors into models/vae"
