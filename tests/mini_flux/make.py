"""Write the small checkpoints: `python -m mini_flux.make FOLDER`.

The weights are random but chosen: seeded, so that every machine has the same; representable in
bf16 and fp16, so that no loader that stores them so changes them; scaled, so that sampling stays
near the noise it starts from and the picture really depends on text, guidance and time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import safety, shapes
from .files import FILES, STAMP, recipe


def make(folder: Path) -> None:
    """Write all files into `folder`, as models folders are laid out; the stamp comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as scratch:
        for name, kind in FILES.items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            part = Path(scratch, target.name)
            save_file(checkpoint(kind), part, metadata={"format": "pt", "made_by": "mini_flux"})
            part.replace(target)
    (folder / STAMP).write_text(recipe(), encoding="utf-8")


def checkpoint(kind: str) -> dict[str, Tensor]:
    """The tensors of one file, by its kind in `files.FILES`."""
    if kind in ("dev", "schnell"):
        return _flux(kind)
    if kind in ("compvis", "falcon"):
        return safety.compvis() if kind == "compvis" else safety.falcon()
    if kind == "t5":
        return _text(shapes.t5(), seed=3, gain=0.5)
    return _text(shapes.clip(), seed=4, gain=1.2) if kind == "clip" else _vae()


def _representable(tensor: Tensor) -> Tensor:
    """Round to what bf16 and fp16 both hold, kept in fp32."""
    rounded = tensor.to(torch.bfloat16).to(torch.float16)
    return rounded.to(torch.float32).contiguous()


def _normal(generator: torch.Generator, shape: tuple[int, ...], deviation: float) -> Tensor:
    return torch.randn(shape, generator=generator) * deviation


# --- the transformer ---

# How far a Linear's outputs reach for inputs of deviation 1; by the end of its name.
_GAINS = {
    "txt_in": 2.5,  # the text must be heard beside 1.0 of the image
    "vector_in.out_layer": 2.0,
    "guidance_in.out_layer": 1.5,
    "time_in.out_layer": 1.5,
    "lin": 0.5,  # modulation: shifts, scales and gates of about a half
    "adaLN_modulation.1": 0.3,
    "final_layer.linear": 0.7,  # the velocity that sampling follows
}


def _flux(kind: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed({"dev": 1, "schnell": 2}[kind])
    made = {}
    for name, shape in shapes.flux(guidance=kind == "dev").items():
        if name.endswith("_norm.scale"):
            # Above 1: attention that looks at some tokens more than at others.
            tensor = 2.0 + _normal(generator, shape, 0.1)
        elif name.endswith(".bias"):
            tensor = _normal(generator, shape, 0.05)
        else:
            module = name.removesuffix(".weight")
            gain = next((g for end, g in _GAINS.items() if module.endswith(end)), 1.0)
            tensor = _normal(generator, shape, gain / shape[1] ** 0.5)
        made[name] = _representable(tensor)
    return made


# --- the text encoders ---


def _text(wanted: shapes.Shapes, *, seed: int, gain: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in wanted.items():
        if "norm" in name:
            centre = 0.0 if name.endswith(".bias") else 1.0
            tensor = centre + _normal(generator, shape, 0.1)
        elif "embedding" in name or name == "shared.weight":
            tensor = _normal(generator, shape, 1.0)
        elif name.endswith(".bias") or "relative" in name:
            tensor = _normal(generator, shape, 0.1)
        else:
            # The gain is small for T5, whose 24 blocks would else drown the embeddings, and large
            # for CLIP, whose pooled output sits on a token that every prompt has.
            tensor = _normal(generator, shape, gain / shape[1] ** 0.5)
        made[name] = _representable(tensor)
    return made


# --- the VAE ---

# What the latents of FLUX's own VAE are scaled and shifted by; undone here, so that the small
# decoder sees latents as the sampler does, of deviation about 1.
_LATENT_SCALE, _LATENT_SHIFT = 0.3611, 0.1159

# A soft 3x3 brush: with it the random decoder paints clouds instead of grains.
_BRUSH = torch.tensor([1.0, 2.0, 1.0])
_BRUSH = _BRUSH[:, None] * _BRUSH[None, :] / 16

# How strongly a convolution mixes; by its name. Residual blocks do little beside what they pass on.
_BLOCK_GAIN = 0.5
_MIXES = {
    "taesd_encoder.0": 4.0,
    "taesd_encoder.14": 3.0,
    "taesd_decoder.1": 2.5,
    "taesd_decoder.7": 2.0,
    "taesd_decoder.12": 2.0,
    "taesd_decoder.17": 2.0,
    "taesd_decoder.19": 0.3,
}


def _vae() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    made = {"vae_scale": torch.tensor(_LATENT_SCALE), "vae_shift": torch.tensor(_LATENT_SHIFT)}
    for name, shape in shapes.vae().items():
        module, _, kind = name.rpartition(".")
        if kind == "bias":
            # The last bias is the middle of the tones.
            made[name] = torch.full(shape, 0.5 if module == "taesd_decoder.19" else 0.0)
        elif kind == "weight":
            mix = _normal(generator, shape[:2], 1 / shape[1] ** 0.5)
            # Features are positive after a ReLU: rows that add up to nothing keep the average of
            # one layer from becoming the whole picture of the next.
            mix -= mix.mean(dim=1, keepdim=True)
            gain = _BLOCK_GAIN if ".conv." in name else _MIXES.get(module, 1.7)
            made[name] = gain * mix[:, :, None, None] * _BRUSH
    return {name: _representable(tensor) for name, tensor in made.items()}


if __name__ == "__main__":
    make(Path(sys.argv[1]))
