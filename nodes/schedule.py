"""FluxHotswapSchedule: the hosted model's sigmas."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..prediction.plan import sigmas_of
from ..prediction.sizes import GRID, Size
from ..prediction.spec import FIELD
from .base import CATEGORY, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

_SIDE_LIMIT = 16384


class FluxHotswapSchedule(io.ComfyNode):
    """Makes the sigmas of a run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        sides: dict[str, Any] = {"min": GRID, "max": _SIDE_LIMIT}
        return io.Schema(
            node_id="FluxHotswapSchedule",
            display_name="FLUX Hotswap Schedule",
            category=CATEGORY,
            **aliases("flux scheduler", "sigmas", "flux shift"),
            description="The hosted model's exact sigmas for a model, a number of steps and a "
            "size.",
            inputs=[
                request_input("everything here"),
                field_input(
                    FIELD["model"],
                    tooltip="The model that is sampled: the size shifts dev's sigmas, schnell's "
                    "are evenly spaced.",
                ),
                field_input(FIELD["num_inference_steps"], name="steps"),
                field_input(FIELD["width"], tooltip="Final width of the image in pixels.", **sides),
                field_input(
                    FIELD["height"], tooltip="Final height of the image in pixels.", **sides
                ),
                field_input(FIELD["prompt_strength"]),
                io.Boolean.Input(
                    "has_image",
                    default=False,
                    optional=True,
                    tooltip="Whether the latent holds an image. Then prompt_strength skips the "
                    "first steps; without one it has no effect.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    "out_sigmas",
                    display_name="SIGMAS",
                    tooltip="The sigmas, from the first step's to 0.",
                )
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        request: Prediction | None = None,
        width: int = 1024,
        height: int = 1024,
        model: str = "dev",
        steps: int = 28,
        prompt_strength: float = 0.8,
        has_image: bool = False,
    ) -> io.NodeOutput:
        """Make the sigmas."""
        import torch

        if request is not None:
            sigmas, skipped = request.plan.sigmas, request.plan.start_step
            has_image = request.image is not None
            prompt_strength = request.request.prompt_strength
        else:
            strength = prompt_strength if has_image else None
            sigmas, skipped = sigmas_of(model, steps, Size(width, height), strength)
        done = {"steps": len(sigmas) - 1, "start_step": skipped}
        note(cls, **done, **({"prompt_strength": prompt_strength} if has_image else {}))
        return io.NodeOutput(torch.tensor(sigmas, dtype=torch.float32))
