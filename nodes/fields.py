"""FluxHotswapFields: the fields of a request, one by one."""

from __future__ import annotations

from typing import Any, Final

from comfy_api.latest import io

from ..prediction.spec import FIELDS, Field
from .base import CATEGORY, aliases, field_output
from .wire import Prediction, RequestWire

HANDED_OUT: Final = {
    "prompt": "The prompt as it was written.",
    "image": "The input image, if there is one.",
    "mask": "Its mask, if there is one.",
    "aspect_ratio": "The aspect ratio that was asked for.",
    "height": "Final height of the image in pixels.",
    "width": "Final width of the image in pixels.",
    "prompt_strength": "The prompt strength that was asked for.",
    "model": "The model that was asked for, dev or schnell.",
    "num_outputs": "The number of images.",
    "num_inference_steps": "The number of steps of the whole schedule.",
    "guidance_scale": "The guidance that was asked for; schnell ignores it.",
    "seed": "The seed that is used, a random one if none was given.",
    "output_format": "The file format that was asked for.",
    "output_quality": "The quality that was asked for.",
    "disable_safety_checker": "Whether the safety checker is off.",
    "go_fast": "Whether the model runs in 8 bit; with a custom size or an image it does not.",
    "megapixels": "The megapixels that were asked for.",
    "lora": "The main LoRA as it was written, or an empty text.",
    "lora_scale": "The strength of the main LoRA that was asked for, not multiplied.",
    "extra_lora": "The second LoRA as it was written, or an empty text.",
    "extra_lora_scale": "The strength of the second LoRA that was asked for, not multiplied.",
}
"""What goes out of a node as a field: what was asked for, and where the plan decides, what runs."""


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
    tooltip = HANDED_OUT[field.name]
    if field.name == "image":
        return io.Image.Output("out_image", display_name="image", tooltip=tooltip)
    if field.name == "mask":
        return io.Mask.Output("out_mask", display_name="mask", tooltip=tooltip)
    return field_output(field, tooltip)


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
