"""FluxHotswapInputs: the whole request as one form."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ..engine.ahead import begin
from ..engine.pictures import fingerprint, read_source
from ..ops.picture import decode_mask, decode_picture, grid_mask, is_placeholder, mask_warning
from ..ops.picture_file import upright_size
from ..prediction.data_uri import is_data_uri
from ..prediction.plan import Plan, Strengths, make_plan
from ..prediction.request import Request, parse_request
from ..prediction.spec import (
    CUSTOM,
    FIELD,
    FIELDS,
    GO_FAST_LORA,
    GO_FAST_MULTIPLIER,
    RANDOM_SEED_LIMIT,
)
from .base import CATEGORY, aliases, field_input, field_output, go_fast_inputs, told
from .fields import HANDED_OUT
from .journal import HIDDEN, note
from .wire import Prediction, RequestWire

if TYPE_CHECKING:
    from torch import Tensor

SOURCES: Final = ("image", "mask", "lora", "extra_lora")
"""The fields that name a file, or hold one."""


class FluxHotswapInputs(io.ComfyNode):
    """Takes the fields of a hosted request and decides everything that the other nodes do."""

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
                *go_fast_inputs(),
                io.Image.Input(
                    "input_image",
                    optional=True,
                    tooltip="The image as a connection, such as from Load Image. It is used "
                    "instead of the image field.",
                ),
                io.Mask.Input(
                    "input_mask",
                    optional=True,
                    tooltip="The mask as a connection, such as from the mask editor. It is "
                    "used instead of the mask field.",
                ),
            ],
            outputs=[
                RequestWire.Output(
                    "out_request",
                    display_name="request",
                    tooltip="The whole request, for the other nodes of this pack.",
                ),
                field_output(FIELD["prompt"], HANDED_OUT["prompt"]),
                field_output(FIELD["width"], HANDED_OUT["width"]),
                field_output(FIELD["height"], HANDED_OUT["height"]),
                field_output(FIELD["seed"], HANDED_OUT["seed"]),
                io.String.Output(
                    "out_report", display_name="report", tooltip="What will run, in words."
                ),
                io.Image.Output("out_image", display_name="image", tooltip=HANDED_OUT["image"]),
                io.Mask.Output("out_mask", display_name="mask", tooltip=HANDED_OUT["mask"]),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(
        cls, seed: int | None = None, image: str | None = "", mask: str | None = "", **_: Any
    ) -> float | str:
        """Run anew when a picture's file changes, or no seed is given and each run draws one.

        What comes through a wire is None here: nobody knows yet which file its text names.
        """
        if seed is None or image is None or mask is None:
            return float("nan")  # a new one each time: a NaN equals itself when it is one object
        return f"{fingerprint('image', image)} {fingerprint('mask', mask)}"

    @classmethod
    async def execute(
        cls,
        go_fast_multiplier: float = GO_FAST_MULTIPLIER,
        go_fast_lora: str = GO_FAST_LORA[0],
        input_image: Tensor | None = None,
        input_mask: Tensor | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        """Decide everything, and begin to fetch what has to be fetched.

        ComfyUI runs asynchronous nodes before those that load models, so a LoRA that cannot be had
        ends the prompt before anything is loaded. That is all there is to the `async`.
        """
        request = parse_request(given_fields(values))
        strengths = Strengths(go_fast_multiplier, go_fast_lora)
        prediction = gather(request, input_image, input_mask, strengths)
        plan = prediction.plan
        begin(plan, cls.hidden.prompt or {})
        wired = [
            name
            for name, used, made in (
                ("image", prediction.image, input_image),
                ("mask", prediction.mask, input_mask),
            )
            if used is not None and used is made
        ]
        note(cls, warnings=list(plan.warnings), request=asked(prediction, wired))
        return io.NodeOutput(
            prediction,
            request.prompt,
            plan.width,
            plan.height,
            plan.seed,
            describe(plan),
            prediction.image,
            prediction.mask,
            ui={"flux_hotswap_plan": told(plan.to_dict())},
        )


def gather(
    request: Request, image: Tensor | None, mask: Tensor | None, strengths: Strengths
) -> Prediction:
    """Return a request with its pictures and its plan; a connected picture wins over a named one.

    Args:
        request: what was asked for.
        image: [B,H,W,C] 0..1, the connected picture.
        mask: [B,H,W] 0..1, the connected mask; the one that LoadImage gives for none is none.
        strengths: what go_fast makes of LoRA strengths.

    Raises:
        RequestError: a named picture is not there, or a mask has no image.
        ImageError: a named picture or its size cannot be read, or its link cannot be had.
    """
    named, size = b"", None
    if image is not None:
        size = image.shape[2], image.shape[1]
    elif request.image:
        named = read_source("image", request.image)
        size = upright_size(named, "image")
    if mask is not None and is_placeholder(mask, size):
        mask = None
    notes = [
        f"{field}: the connected one is used, not the one named in the field"
        for field, connected, named in (
            ("image", image, request.image),
            ("mask", mask, request.mask),
        )
        if connected is not None and named
    ]
    if image is not None and len(image) > 1:
        notes.append(f"image: the first of {len(image)} pictures is used")
    plan = make_plan(
        request,
        seed=secrets.randbelow(RANDOM_SEED_LIMIT),
        image=size,
        mask=mask is not None or bool(request.mask),
        strengths=strengths,
    )
    if named:
        image = decode_picture(named, "image", fit=plan.size, warn=notes.append)
    del named  # a file's bytes are not kept beside its pixels
    if mask is None and request.mask:
        named = read_source("mask", request.mask)
        mask = decode_mask(named, "mask", fit=plan.size, warn=notes.append)
    if mask is not None and (warning := mask_warning(mask, grid_mask(mask, *plan.size))):
        notes.append(warning)
    plan = replace(plan, warnings=(*plan.warnings, *notes))
    return Prediction(request, plan, image, mask)


def given_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the widgets' values as a request.

    A widget cannot be empty, so width and height count only where they are used.
    """
    unused = () if values.get("aspect_ratio") == CUSTOM else ("width", "height")
    return {name: value for name, value in values.items() if name not in unused}


def asked(prediction: Prediction, wired: Collection[str]) -> dict[str, Any]:
    """Return the request for who looks at its pictures and wants it again.

    Args:
        prediction: what runs.
        wired: which of image and mask are connected, and used so.

    Returns:
        fields: each that has a value, with the seed that is used. left_out: the fields whose value
        cannot be said in a few words: a connected picture, and the bytes of a `data:` URI.
    """
    given: dict[str, Any] = {**asdict(prediction.request), "seed": prediction.plan.seed}
    left_out = list(wired)
    left_out += [name for name in SOURCES if name not in wired and is_data_uri(given[name] or "")]
    fields = {
        name: value for name, value in given.items() if value is not None and name not in left_out
    }
    return {"fields": fields, "left_out": left_out}


def describe(plan: Plan) -> str:
    """Return the plan in a few lines of text."""
    lines = [
        f"{plan.mode}: {plan.num_outputs} x {plan.size}, {plan.steps} steps of {plan.model}",
        f"route: {plan.route} ({plan.route_reason})",
        f"seed: {plan.seed}{_noise_seed(plan)}",
        *(f"lora: {lora.source} at {lora.strength:g}" for lora in plan.loras),
        *(f"note: {warning}" for warning in plan.warnings),
    ]
    return "\n".join(lines)


def _noise_seed(plan: Plan) -> str:
    if plan.noise_seed == plan.seed:
        return ""
    return f", with go_fast the noise is that of {plan.noise_seed}, as on the hosted model"
