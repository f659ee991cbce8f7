"""FluxHotswapNoise: the noise that sampling starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..errors import InputError
from ..ops.noise import H100_MULTIPROCESSORS, LATENT_CHANNELS, hosted_noise
from ..prediction.plan import noise_draw
from ..prediction.spec import FIELD
from .base import CATEGORY, Choice, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input


class FluxHotswapNoise(io.ComfyNode):
    """Chooses between the hosted model's noise and ComfyUI's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapNoise",
            display_name="FLUX Hotswap Noise",
            category=CATEGORY,
            **aliases("random noise", "seed", "hosted noise"),
            description="The noise of a seed: the hosted model's, bit for bit, or ComfyUI's.",
            inputs=[
                request_input("the seed"),
                field_input(FIELD["seed"], tooltip="The same seed draws the same noise."),
                Choice.Input(
                    "source",
                    options=["hosted", "comfy"],
                    default="hosted",
                    optional=True,
                    tooltip="hosted draws what the hosted model's GPU draws for this seed, on any "
                    "machine. comfy draws ComfyUI's usual noise.",
                ),
                io.Int.Input(
                    "multiprocessors",
                    default=H100_MULTIPROCESSORS,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip="Multiprocessors of the GPU whose noise is drawn: 132 for the hosted "
                    "model's H100, 108 for an A100. These two differ from about 940x940 up. An RTX "
                    "30, 40 or 50 counts for three quarters of its own: 96 for a 4090.",
                ),
            ],
            outputs=[
                io.Noise.Output(
                    "out_noise", display_name="NOISE", tooltip="The noise, for a sampler."
                )
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        request: Prediction | None = None,
        seed: int = 0,
        source: str = "hosted",
        multiprocessors: int = H100_MULTIPROCESSORS,
    ) -> io.NodeOutput:
        """Hand out the noise; it is drawn when the sampler asks for it."""
        draw = None
        if request is not None:
            seed, draw = request.plan.seed, request.plan.noise_draw
        if source == "comfy":
            note(cls, seed=seed, noise=source)
            return io.NodeOutput(ComfyNoise(seed))
        drawn = seed if request is None else request.plan.noise_seed
        note(cls, seed=seed, noise=source, **({} if drawn == seed else {"noise_seed": drawn}))
        return io.NodeOutput(HostedNoise(drawn, multiprocessors, draw))


@dataclass(frozen=True)
class HostedNoise:
    """ComfyUI's NOISE, drawn as the hosted model's GPU draws it.

    Attributes:
        seed: of the generator.
        multiprocessors: of the GPU.
        draw: which draw of the generator it is, None to see from the latent.
    """

    seed: int
    multiprocessors: int
    draw: int | None = None

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Return noise like the latent's samples, [B,16,H/8,W/8] float32 on the CPU.

        Raises:
            InputError: the latent is not one of FLUX.
        """
        samples = input_latent["samples"]
        if samples.ndim != 4 or samples.shape[1] != LATENT_CHANNELS:
            raise InputError(
                f"latent: hosted noise is for FLUX latents with {LATENT_CHANNELS} channels, this "
                f"one has shape {list(samples.shape)}; use source comfy, or a FLUX latent"
            )
        batch, _, height, width = samples.shape
        chosen = input_latent.get("batch_index") or list(range(batch))
        draw = noise_draw(image=bool(samples.any())) if self.draw is None else self.draw
        noise = hosted_noise(
            self.seed,
            batch=max(chosen) + 1,
            height=height,
            width=width,
            draw=draw,
            multiprocessors=self.multiprocessors,
        )
        return noise[chosen]


@dataclass(frozen=True)
class ComfyNoise:
    """ComfyUI's NOISE as its own RandomNoise node makes it."""

    seed: int

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Return noise like the latent's samples."""
        import comfy.sample

        return comfy.sample.prepare_noise(
            input_latent["samples"], self.seed, input_latent.get("batch_index")
        )
