"""FluxHotswapSchedule: the hosted model's sigmas."""

from __future__ import annotations

from comfy_api.latest import io

from ..prediction.schedule import full_schedule, start_step
from ..prediction.sizes import GRID, Size
from ..prediction.spec import FIELD
from .base import CATEGORY, aliases, field_input

_SIDE_LIMIT = 16384


class FluxHotswapSchedule(io.ComfyNode):
    """Makes the noise levels of a run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        sides = {"min": GRID, "max": _SIDE_LIMIT, "default": 1024, "optional": False}
        return io.Schema(
            node_id="FluxHotswapSchedule",
            display_name="FLUX Hotswap Schedule",
            category=CATEGORY,
            **aliases("flux scheduler", "sigmas", "flux shift"),
            description="The exact noise levels of the hosted model for a model, steps and size.",
            inputs=[
                field_input(FIELD["model"]),
                field_input(FIELD["num_inference_steps"], name="steps"),
                field_input(
                    FIELD["width"], tooltip="Final width of the picture in pixels.", **sides
                ),
                field_input(
                    FIELD["height"], tooltip="Final height of the picture in pixels.", **sides
                ),
                field_input(FIELD["prompt_strength"]),
                io.Boolean.Input(
                    "has_image",
                    default=False,
                    optional=True,
                    tooltip="Whether the latent holds a picture. Then prompt_strength skips the "
                    "first steps; without one it has no effect.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    "out_sigmas", display_name="SIGMAS", tooltip="From the first step's to 0."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        model: str = "dev",
        steps: int = 28,
        prompt_strength: float = 0.8,
        has_image: bool = False,
    ) -> io.NodeOutput:
        """Make the sigmas."""
        import torch

        sigmas = full_schedule(model, steps, Size(width, height).tokens)
        skipped = start_step(steps, prompt_strength) if has_image else 0
        return io.NodeOutput(torch.tensor(sigmas[skipped:], dtype=torch.float32))
