"""FluxHotswapLatent: an empty FLUX latent of one of the hosted model's sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..ops.noise import LATENT_CHANNELS
from ..prediction.sizes import Size, custom_size, preset_size
from ..prediction.spec import CUSTOM, FIELD
from .base import CATEGORY, field_input

if TYPE_CHECKING:
    from torch import Tensor


class FluxHotswapLatent(io.ComfyNode):
    """Makes the latent that sampling starts from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        names = ("aspect_ratio", "megapixels", "width", "height", "num_outputs")
        return io.Schema(
            node_id="FluxHotswapLatent",
            display_name="FLUX Hotswap Latent",
            category=CATEGORY,
            description="An empty FLUX latent of the hosted model's exact size.",
            inputs=[field_input(FIELD[name]) for name in names],
            outputs=[
                io.Latent.Output("out_latent", display_name="LATENT", tooltip="16 channels."),
                io.Int.Output("out_width", display_name="width", tooltip="Final width."),
                io.Int.Output("out_height", display_name="height", tooltip="Final height."),
            ],
        )

    @classmethod
    def execute(
        cls,
        aspect_ratio: str = "1:1",
        megapixels: str = "1",
        width: int = 1024,
        height: int = 1024,
        num_outputs: int = 1,
    ) -> io.NodeOutput:
        """Make the latent."""
        if aspect_ratio == CUSTOM:
            size = custom_size(width, height)
        else:
            size = preset_size(aspect_ratio, megapixels)
        return io.NodeOutput({"samples": empty_latent(size, num_outputs)}, *size)


def empty_latent(size: Size, batch: int) -> Tensor:
    """Return zeros [batch,16,height/8,width/8] where ComfyUI keeps latents."""
    import comfy.model_management
    import torch

    device = comfy.model_management.intermediate_device()
    shape = (batch, LATENT_CHANNELS, size.height // 8, size.width // 8)
    return torch.zeros(shape, device=device)
