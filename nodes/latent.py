"""FluxHotswapLatent: the latent of one of the hosted model's sizes, empty or from a picture."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..errors import InputError, RequestError
from ..ops.noise import LATENT_CHANNELS
from ..ops.picture import LATENT_CELL, grid_mask, is_placeholder, mask_warning, resize_picture
from ..prediction.plan import mode_of, size_of
from ..prediction.sizes import Size
from ..prediction.spec import FIELD
from .base import CATEGORY, aliases, field_input
from .fields import HANDED_OUT
from .journal import HIDDEN, note
from .wire import Prediction, request_input

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class FluxHotswapLatent(io.ComfyNode):
    """Makes the latent that sampling starts from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        names = ("megapixels", "width", "height", "num_outputs")
        return io.Schema(
            node_id="FluxHotswapLatent",
            display_name="FLUX Hotswap Latent",
            category=CATEGORY,
            **aliases("empty latent", "aspect ratio", "resolution", "vae encode", "inpaint"),
            description="A FLUX latent of the hosted model's exact size: empty, or encoded "
            "from an image.",
            inputs=[
                request_input("size, number, image and mask"),
                field_input(
                    FIELD["aspect_ratio"],
                    tooltip="Aspect ratio of the image. custom takes width and height instead.",
                ),
                *(field_input(FIELD[name]) for name in names),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Image to start from. It sets the size: shrunk to fit 1440x1440, each "
                    "side rounded up to a multiple of 16.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White is repainted. The mask is resized to the image and cut hard at "
                    "half grey.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="FLUX's VAE, to encode the image."),
            ],
            outputs=[
                io.Latent.Output(
                    "out_latent",
                    display_name="LATENT",
                    tooltip="The latent of 16 channels, with the mask if there is one.",
                ),
                io.Int.Output("out_width", display_name="width", tooltip=HANDED_OUT["width"]),
                io.Int.Output("out_height", display_name="height", tooltip=HANDED_OUT["height"]),
                io.Boolean.Output(
                    "out_has_image",
                    display_name="has_image",
                    tooltip="Whether the latent holds an image, for the Schedule node.",
                ),
                io.Mask.Output(
                    "out_mask",
                    display_name="mask",
                    tooltip="The area that is really repainted, in whole latent cells. Nothing "
                    "without a mask.",
                ),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        request: Prediction | None = None,
        aspect_ratio: str = "1:1",
        megapixels: str = "1",
        width: int = 1024,
        height: int = 1024,
        num_outputs: int = 1,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        """Make the latent."""
        if request is not None:
            image, mask = request.image, request.mask
            size, num_outputs = request.plan.size, request.plan.num_outputs
        else:
            sides = None if image is None else (image.shape[2], image.shape[1])
            if mask is not None and is_placeholder(mask, sides):
                mask = None
            if mask is not None and image is None:
                raise RequestError("mask", "a mask", "connect its image too", "needs an image")
            size = size_of(aspect_ratio, megapixels, width, height, sides)
        mode = mode_of(image=image is not None, mask=mask is not None)
        note(cls, mode=mode, width=size.width, height=size.height, num_outputs=num_outputs)
        latent, cells = make_latent(size, num_outputs, image, mask, vae)
        return io.NodeOutput(latent, *size, image is not None, cells)


def make_latent(
    size: Size, batch: int, image: Tensor | None, mask: Tensor | None, vae: Any
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return ComfyUI's LATENT, and the mask of what is repainted in pixels, [1,H,W].

    Args:
        size: of the picture.
        batch: how many.
        image: [B,H,W,C] 0..1, None for an empty latent.
        mask: [B,H,W] 0..1, None to repaint everything.
        vae: encodes the image.

    Raises:
        InputError: there is an image and the VAE is missing, or not FLUX's.
    """
    if image is None:
        return {"samples": empty_latent(size, batch)}, None
    latent = {"samples": encode(vae, image, size, batch)}
    if mask is None:
        return latent, None
    cells = grid_mask(mask, *size)
    if warning := mask_warning(mask, cells):
        log.warning(warning)
    latent["noise_mask"] = cells[:, None]
    return latent, pixels_of(cells)


def empty_latent(size: Size, batch: int) -> Tensor:
    """Return zeros [batch,16,height/8,width/8] where ComfyUI keeps latents."""
    import comfy.model_management
    import torch

    device = comfy.model_management.intermediate_device()
    shape = (batch, LATENT_CHANNELS, size.height // LATENT_CELL, size.width // LATENT_CELL)
    return torch.zeros(shape, device=device)


def encode(vae: Any, image: Tensor, size: Size, batch: int) -> Tensor:
    """Return the first picture of image [B,H,W,C], resized and encoded once for the batch.

    Returns:
        [batch,16,height/8,width/8].

    Raises:
        InputError: the VAE is missing, or not FLUX's.
    """
    if vae is None:
        raise InputError("vae: an image has to be encoded; connect FLUX's VAE (ae.safetensors)")
    samples = vae.encode(resize_picture(image, *size))
    if samples.ndim != 4 or samples.shape[1] != LATENT_CHANNELS:
        raise InputError(
            f"vae: makes latents of shape {list(samples.shape)}, FLUX's have {LATENT_CHANNELS} "
            "channels; load ae.safetensors"
        )
    return samples.repeat(batch, 1, 1, 1)


def pixels_of(cells: Tensor) -> Tensor:
    """Return a mask of latent cells [1,h,w] in pixels, [1,8h,8w]."""
    return cells.repeat_interleave(LATENT_CELL, 1).repeat_interleave(LATENT_CELL, 2)
