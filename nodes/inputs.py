"""FluxHotswapInputs: the whole request as one form."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ..ops.picture import decode_mask, decode_picture, grid_mask, is_placeholder, mask_warning
from ..prediction.errors import RequestError
from ..prediction.plan import Plan, make_plan
from ..prediction.request import Request, parse_request
from ..prediction.spec import CUSTOM, FIELD, FIELDS, RANDOM_SEED_LIMIT
from .base import CATEGORY, aliases, field_input, field_output
from .pictures import check_source, fingerprint, read_source

if TYPE_CHECKING:
    from torch import Tensor

ABSENT: Final = 0
"""Stands for an input that was left out; a linked one reaches the validation as None."""

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
            **aliases("replicate", "flux request", "flux form", "aspect ratio"),
            description="The fields of the hosted model in one form: same names, same defaults.",
            inputs=[
                *(field_input(field) for field in FIELDS),
                io.Image.Input(
                    "input_image",
                    optional=True,
                    tooltip="The image field as a connection, such as from Load Image.",
                ),
                io.Mask.Input(
                    "input_mask",
                    optional=True,
                    tooltip="The mask field as a connection, such as from the mask editor.",
                ),
            ],
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
                io.Image.Output(
                    "out_image", display_name="image", tooltip="The input picture, if there is one."
                ),
                io.Mask.Output(
                    "out_mask", display_name="mask", tooltip="Its mask, if there is one."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        image: str | None = "",
        mask: str | None = "",
        aspect_ratio: str | None = None,
        height: int | None = ABSENT,
        width: int | None = ABSENT,
        input_image: int | None = ABSENT,
    ) -> bool | str:
        """Refuse what no check of a single input can see.

        That is a custom size without width or height, a mask without an image, and a picture that
        is not there. Naming an input here switches ComfyUI's own check of it off, so its range is
        checked here too. A linked input arrives as None: it is checked when the node runs.
        """
        values = {
            "aspect_ratio": aspect_ratio,
            "height": FIELD["height"].minimum if height is None else height or None,
            "width": FIELD["width"].minimum if width is None else width or None,
        }
        has_image = image is None or image != "" or input_image is None
        try:
            request = parse_request({"prompt": "", **given_fields(values)})
            make_plan(request, seed=0, image=(1, 1) if has_image else None, mask=bool(mask))
            for field, source in (("image", image), ("mask", mask)):
                if source:
                    check_source(field, source)
        except RequestError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, seed: int | None = None, image: str | None = "", mask: str | None = "", **_: Any
    ) -> float | str:
        """Run anew when a picture's file changes, or no seed is given and each run draws one."""
        if seed is None:
            return float("nan")  # a new one each time: a NaN equals itself when it is one object
        return fingerprint("image", image or "") + fingerprint("mask", mask or "")

    @classmethod
    def execute(
        cls, input_image: Tensor | None = None, input_mask: Tensor | None = None, **values: Any
    ) -> io.NodeOutput:
        """Plan the request and pass it on, field by field."""
        request = parse_request(given_fields(values))
        pictures = gather(request, input_image, input_mask)
        plan = plan_with(request, pictures)
        passed = (getattr(request, name) for name in PASSED_ON)
        return io.NodeOutput(
            *("" if value is None else value for value in passed),
            plan.width,
            plan.height,
            plan.seed,
            plan.route == "fp8",
            plan.route_reason,
            describe(plan),
            pictures.image,
            pictures.mask,
            ui={"flux_hotswap": [plan.to_dict()]},
        )


@dataclass(frozen=True)
class Pictures:
    """The input pictures of a request.

    Attributes:
        image: [B,H,W,C] 0..1 or None.
        mask: [B,H,W] 0..1 or None.
        notes: what the user should know about them.
    """

    image: Tensor | None
    mask: Tensor | None
    notes: tuple[str, ...]


def gather(request: Request, image: Tensor | None, mask: Tensor | None) -> Pictures:
    """Return the pictures of a request; a connected one wins over one that is named.

    Raises:
        RequestError: a named picture is not there.
        PictureError: a named picture cannot be read.
    """
    notes: list[str] = []
    for field, connected, named in (
        ("image", image, request.image),
        ("mask", mask, request.mask),
    ):
        if connected is not None and named:
            notes.append(f"{field}: the connected one is used, not the one named in the field")
    if image is None and request.image:
        image = decode_picture(read_source("image", request.image), "image")
    elif image is not None and len(image) > 1:
        notes.append(f"image: the first of {len(image)} pictures is used")
    if mask is None and request.mask:
        mask = decode_mask(read_source("mask", request.mask), "mask")
    elif mask is not None and is_placeholder(mask, image):
        mask = None
    return Pictures(image, mask, tuple(notes))


def plan_with(request: Request, pictures: Pictures) -> Plan:
    """Plan a request with its pictures, and warn of a mask that changes nothing.

    Raises:
        RequestError: a mask without an image.
    """
    image, mask = pictures.image, pictures.mask
    plan = make_plan(
        request,
        seed=secrets.randbelow(RANDOM_SEED_LIMIT),
        image=None if image is None else (image.shape[2], image.shape[1]),
        mask=mask is not None,
    )
    notes = pictures.notes
    if mask is not None and (warning := mask_warning(mask, grid_mask(mask, *plan.size))):
        notes += (warning,)
    return replace(plan, warnings=plan.warnings + notes)


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
