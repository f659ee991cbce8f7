"""Every recorded planning vector of the hosted model, with our decisions applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.errors import RequestError
from flux_hotswap.prediction.plan import Plan, make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.schedule import shift_exponent

DATA = Path(__file__).parent / "data"
VECTORS: dict[str, dict[str, Any]] = {
    row["id"]: row
    for row in json.loads((DATA / "hosted_vectors.json").read_text(encoding="utf-8"))["vectors"]
}

DECISIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "P21": (
        "custom sizes go to the nearest multiple of 16, not up",
        {
            "width": 256,
            "tokens": 1440,
            "mu": 0.700416667,
            "sigma_second": 0.981947,
            "sigma_last_nonzero": 0.069434,
            "noise_shape": [1, 16, 180, 32],
        },
    ),
    "P25": ("custom without height is a clear error, not a TypeError", {"error": "height"}),
    "P26": ("custom without a size is fine with an image", VECTORS["P36"]["expect"]),
    "P38": (
        "strength 0 runs no step: the picture passes through the VAE",
        {"steps_run": 0, "sigmas": [0.0]},
    ),
    "P69": ("a mask needs an image", {"error": "mask"}),
    "P70": ("a mask needs an image", {"error": "mask"}),
    "P72": ("bf16 strengths are not squared", {"lora_eff": [0.9]}),
    "P73": ("bf16 strengths are not squared", {"lora_eff": [0.5]}),
    "P74": ("bf16 strengths are not squared", {"lora_eff": [-1.0]}),
    "P76": ("bf16 strengths are not squared", {"lora_eff": [3.0]}),
    "P79": ("go_fast multiplies the extra LoRA too", {"lora_eff": [1.275, 1.35]}),
    "P82": ("an extra LoRA alone is applied in bf16 too", {"lora_eff": [0.8]}),
    "P84": ("bf16 strengths are not squared", {"lora_eff": [0.8]}),
}
"""Rows whose recorded answer is not ours: why, and what is in its place."""


def expected(row_id: str) -> dict[str, Any]:
    """Return what a row's plan must say."""
    recorded: dict[str, Any] = VECTORS[row_id]["expect"]
    if row_id not in DECISIONS:
        return recorded
    _, ours = DECISIONS[row_id]
    return {key: value for key, value in recorded.items() if key != "error"} | ours


def planned(row_id: str) -> Plan:
    """Return the plan of a row's input; its main LoRA is "M" unless it says otherwise."""
    fields: dict[str, Any] = {"prompt": "a cat", "lora": "M", **VECTORS[row_id]["in"]}
    if "main" in fields:
        fields["lora"] = fields.pop("main")
    image = fields.get("image")
    if image:
        fields["image"] = "picture.png"
    if "mask" in fields:
        fields["mask"] = "mask.png"
    return make_plan(
        parse_request(fields),
        seed=7,
        image=tuple(image) if image else None,
        mask="mask" in fields,
    )


def error_rows() -> list[str]:
    return [row_id for row_id in VECTORS if "error" in expected(row_id)]


def plan_rows() -> list[str]:
    return [row_id for row_id in VECTORS if "error" not in expected(row_id)]


def test_every_row_is_here() -> None:
    assert list(VECTORS) == [f"P{number:02}" for number in range(1, 86)]
    assert error_rows() == ["P25", "P69", "P70"]


@pytest.mark.parametrize("row_id", DECISIONS)
def test_decision_differs_from_the_record(row_id: str) -> None:
    recorded = VECTORS[row_id]["expect"]
    _, ours = DECISIONS[row_id]
    assert all(recorded.get(key) != value for key, value in ours.items())


@pytest.mark.parametrize("row_id", error_rows())
def test_error(row_id: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned(row_id)
    assert caught.value.field == expected(row_id)["error"]
    assert str(caught.value).startswith(f"{caught.value.field}: ")


@pytest.mark.parametrize("row_id", plan_rows())
def test_size_and_text(row_id: str) -> None:
    plan, want = planned(row_id), expected(row_id)
    assert (plan.width, plan.height) == (want["width"], want["height"])
    assert plan.size == (want["width"], want["height"])
    assert plan.size.tokens == want["tokens"]
    assert plan.t5_length == want["t5_len"]


@pytest.mark.parametrize("row_id", plan_rows())
def test_mode_and_route(row_id: str) -> None:
    plan, want = planned(row_id), expected(row_id)
    route = {"fp8": "fast"}.get(want["path"], want["path"])
    assert (plan.mode, plan.route) == (want["mode"], route)
    assert plan.safety_checker
    assert plan.seed == 7


@pytest.mark.parametrize("row_id", plan_rows())
def test_schedule(row_id: str) -> None:
    plan, want = planned(row_id), expected(row_id)
    assert plan.steps == want["steps_run"] == len(plan.sigmas) - 1
    asked = VECTORS[row_id]["in"].get("num_inference_steps", 28)
    assert plan.start_step == asked - plan.steps
    assert plan.sigmas[-1] == 0
    if "sigmas" in want:
        assert list(plan.sigmas) == want["sigmas"]
        return
    assert plan.sigmas[0] == pytest.approx(want["sigma_first"], abs=1e-6)
    assert plan.sigmas[1] == pytest.approx(want["sigma_second"], abs=1e-6)
    assert plan.sigmas[-2] == pytest.approx(want["sigma_last_nonzero"], abs=1e-6)
    if want["mu"] is None:
        assert plan.model == "schnell"
    else:
        assert shift_exponent(plan.size.tokens) == pytest.approx(want["mu"], abs=1e-8)


@pytest.mark.parametrize("row_id", plan_rows())
def test_loras(row_id: str) -> None:
    plan, want = planned(row_id), expected(row_id)
    assert [lora.strength for lora in plan.loras] == pytest.approx(want["lora_eff"], abs=1e-12)
    named = VECTORS[row_id]["in"]
    sources = [named.get("main", "M"), named.get("extra_lora")]
    assert [lora.source for lora in plan.loras] == [source for source in sources if source]


@pytest.mark.parametrize("row_id", [row for row in plan_rows() if "noise_shape" in expected(row)])
def test_noise_guidance_and_outputs(row_id: str) -> None:
    plan, want = planned(row_id), expected(row_id)
    assert [plan.num_outputs, 16, plan.height // 8, plan.width // 8] == want["noise_shape"]
    assert plan.noise_draw == want["rng_draw_index_of_noise"]
    assert plan.guidance == want["guidance_used"]
    assert len(want["outputs"]) == plan.num_outputs
    assert {Path(name).suffix for name in want["outputs"]} == {f".{plan.output_format}"}


def test_strength_zero_keeps_the_rest_of_the_plan() -> None:
    plan = planned("P38")
    assert (plan.start_step, plan.noise_draw, plan.guidance) == (28, 1, 3)
    assert any("VAE" in warning for warning in plan.warnings)
