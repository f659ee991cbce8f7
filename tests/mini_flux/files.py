"""Which files there are, and whether they are up to date. Standard library only."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILES = {
    "diffusion_models/flux1-dev.safetensors": "dev",
    "diffusion_models/flux1-schnell.safetensors": "schnell",
    "text_encoders/t5xxl_fp16.safetensors": "t5",
    "text_encoders/clip_l.safetensors": "clip",
    "vae/ae.safetensors": "vae",
    "safety_checker/compvis-safety-checker.safetensors": "compvis",
    "safety_checker/falconsai-nsfw-image-detection.safetensors": "falcon",
}
STAMP = "stamp.txt"


def recipe() -> str:
    """A fingerprint of the code that decides the weights."""
    sources = [Path(__file__).with_name(name) for name in ("make.py", "safety.py", "shapes.py")]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def are_made(folder: Path) -> bool:
    """Whether `folder` holds what `make.make` would write."""
    stamp = folder / STAMP
    fresh = stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe()
    return fresh and all((folder / name).is_file() for name in FILES)
