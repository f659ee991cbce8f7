"""FluxHotswapFields: the fields of a request, one by one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..prediction.spec import FIELDS, Field
from .base import CATEGORY, aliases, field_output
from .wire import Prediction, RequestWire

DECIDED = {
    "width": "Width of the picture that is drawn.",
    "height": "Height of the picture that is drawn.",
    "seed": "The seed that is used, drawn if none was given.",
    "go_fast": "Whether the fast model runs; a custom size or an image runs in bf16.",
}
"""Fields whose value the plan decides, with what goes out."""


class FluxHotswapFields(io.ComfyNode):
    """Hands out what is in a request, for graphs of one's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapFields",
            display_name="FLUX Hotswap Fields",
            category=CATEGORY,
            **aliases("request fields", "split request", "unpack request"),
            description="Every field of a request as an output of its own, for nodes that take no "
            "request.",
            inputs=[RequestWire.Input("request", tooltip="From the Inputs node.")],
            outputs=[_output(field) for field in FIELDS],
        )

    @classmethod
    def execute(cls, request: Prediction) -> io.NodeOutput:
        """Hand out the fields in the schema's order."""
        return io.NodeOutput(*(_value(request, field) for field in FIELDS))


def _output(field: Field) -> io.Output:
    if field.name == "image":
        tooltip = "The input picture, if there is one."
        return io.Image.Output("out_image", display_name="image", tooltip=tooltip)
    if field.name == "mask":
        return io.Mask.Output("out_mask", display_name="mask", tooltip="Its mask, if there is one.")
    return field_output(field, DECIDED.get(field.name))


def _value(prediction: Prediction, field: Field) -> Any:
    plan = prediction.plan
    decided = {
        "image": prediction.image,
        "mask": prediction.mask,
        "width": plan.width,
        "height": plan.height,
        "seed": plan.seed,
        "go_fast": plan.route == "fast",
    }
    if field.name in decided:
        return decided[field.name]
    value = getattr(prediction.request, field.name)
    return "" if value is None else value  # a text that was not given
