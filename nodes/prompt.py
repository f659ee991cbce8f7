"""FluxHotswapPrompt: text to conditioning, with the hosted model's token lengths."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..engine.text import flux_tokens
from ..ops.recent import Last
from ..prediction.plan import T5_LENGTH, guidance_of
from ..prediction.request import check_value
from ..prediction.spec import FIELD, Field, Kind
from .base import CATEGORY, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

encoded = Last()
"""A new seed runs every node behind the form anew; the text is not encoded again for it."""


class FluxHotswapPrompt(io.ComfyNode):
    """Encodes a prompt for FLUX.1 as the hosted model does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapPrompt",
            display_name="FLUX Hotswap Prompt",
            category=CATEGORY,
            **aliases("clip text encode flux", "text encode", "t5"),
            description="Encodes a prompt with T5 padded and cut at 512 tokens (dev) or 256 "
            "(schnell). Parentheses and weights are plain text.",
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP-L and T5-XXL, loaded for FLUX."),
                request_input("text, model and guidance"),
                field_input(FIELD["prompt"], name="text", optional=True),
                field_input(
                    FIELD["model"],
                    tooltip="The model that the prompt is for: it decides the number of T5 tokens.",
                ),
                field_input(FIELD["guidance_scale"], name="guidance"),
            ],
            outputs=[
                io.Conditioning.Output(
                    "out_conditioning",
                    display_name="CONDITIONING",
                    tooltip="The encoded prompt with its guidance.",
                )
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        request: Prediction | None = None,
        text: str = "",
        model: str = "dev",
        guidance: float = 3.0,
    ) -> io.NodeOutput:
        """Encode the text."""
        import node_helpers

        if request is not None:
            text, length = request.request.prompt, request.plan.t5_length
            distilled = request.plan.guidance
        else:
            check_value(Field("text", Kind.STRING, ""), text)  # a wire brings what nobody checked
            length, distilled = T5_LENGTH[model], guidance_of(model, guidance)
        tokens = flux_tokens(clip, text, length)
        conditioning = encoded.get(
            clip,
            (clip.patcher.patches_uuid, tokens),
            lambda: clip.encode_from_tokens_scheduled(tokens),
        )
        note(cls, prompt=text, guidance=distilled, t5_length=length)
        return io.NodeOutput(
            node_helpers.conditioning_set_values(conditioning, {"guidance": distilled})
        )
