"""FluxHotswapInputs: the whole request as one form."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

from comfy_api.latest import io

from ..prediction.errors import RequestError
from ..prediction.plan import Plan, make_plan
from ..prediction.request import parse_request
from ..prediction.spec import CUSTOM, FIELD, FIELDS, RANDOM_SEED_LIMIT
from .base import CATEGORY, field_input, field_output

ABSENT: Final = 0
"""Stands for a width or height that was left out, while a linked one arrives as None."""

NOT_HERE: Final = ("image", "mask")
"""Fields that this node does not take yet."""

PASSED_ON: Final = (
    "prompt", "model", "aspect_ratio", "megapixels", "num_outputs", "num_inference_steps",
    "prompt_strength", "guidance_scale", "lora", "lora_scale", "extra_lora", "extra_lora_scale",
    "output_format", "output_quality", "disable_safety_checker",
)  # fmt: skip
"""Fields that go out as they came in."""


class FluxHotswapInputs(io.ComfyNode):
    """Takes the fields of a hosted request and hands out everything the other nodes need."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapInputs",
            display_name="FLUX Hotswap Inputs",
            category=CATEGORY,
            description="The fields of the hosted model in one form: same names, same defaults.",
            inputs=[field_input(field) for field in FIELDS if field.name not in NOT_HERE],
            outputs=[
                *(field_output(FIELD[name]) for name in PASSED_ON),
                *(field_output(FIELD[name]) for name in ("width", "height", "seed", "go_fast")),
                io.String.Output(
                    "out_route_reason",
                    display_name="route_reason",
                    tooltip="Why the fp8 or the bf16 route was taken.",
                ),
                io.String.Output(
                    "out_report", display_name="report", tooltip="What will run, in words."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        aspect_ratio: str | None = None,
        width: int | None = ABSENT,
        height: int | None = ABSENT,
        prompt_strength: float | None = None,
        guidance_scale: float | None = None,
        lora_scale: float | None = None,
        extra_lora_scale: float | None = None,
    ) -> bool | str:
        """Refuse what ComfyUI's own checks let through: NaN, and custom without width or height.

        Naming an input here switches ComfyUI's own check of it off, so its range is checked here
        too. A linked input arrives as None: its value is checked when the node runs.
        """
        values = {
            "aspect_ratio": aspect_ratio,
            "width": FIELD["width"].minimum if width is None else width or None,
            "height": FIELD["height"].minimum if height is None else height or None,
            "prompt_strength": prompt_strength,
            "guidance_scale": guidance_scale,
            "lora_scale": lora_scale,
            "extra_lora_scale": extra_lora_scale,
        }
        try:
            make_plan(parse_request({"prompt": "", **given_fields(values)}), seed=0)
        except RequestError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, seed: int | None = None, **_: Any) -> float | str:
        """Run anew each time where no seed is given, for each run draws one."""
        return math.nan if seed is None else ""

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Plan the request and pass it on, field by field."""
        request = parse_request(given_fields(values))
        plan = make_plan(request, seed=secrets.randbelow(RANDOM_SEED_LIMIT))
        passed = (getattr(request, name) for name in PASSED_ON)
        return io.NodeOutput(
            *("" if value is None else value for value in passed),
            plan.width,
            plan.height,
            plan.seed,
            plan.route == "fp8",
            plan.route_reason,
            describe(plan),
            ui={"flux_hotswap": [plan.to_dict()]},
        )


def given_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the widgets' values as a request.

    A widget cannot be empty, so width and height count only where they are used.
    """
    unused = () if values.get("aspect_ratio") == CUSTOM else ("width", "height")
    return {name: value for name, value in values.items() if name not in unused}


def describe(plan: Plan) -> str:
    """Return the plan in a few lines of text."""
    lines = [
        f"{plan.mode}: {plan.num_outputs} x {plan.size}, {plan.steps} steps of {plan.model}",
        f"route: {plan.route} ({plan.route_reason})",
        f"seed: {plan.seed}",
        *(f"lora: {lora.source} at {lora.strength:g}" for lora in plan.loras),
        *(f"note: {warning}" for warning in plan.warnings),
    ]
    return "\n".join(lines)
