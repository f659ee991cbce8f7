"""The small FLUX that has learned to draw: its files, unpacked. Standard library only.

`python3 dev.py train` makes them, `learn` holds how.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

PACKED = Path(__file__).with_name("trained")
FILES = {
    "flux1-dev": "diffusion_models",
    "flux1-schnell": "diffusion_models",
    "t5xxl_fp16": "text_encoders",
    "clip_l": "text_encoders",
    "ae": "vae",
    "sticker": "loras",
    "hollow": "loras",
}
"""Name of each file, without its ending, and the models folder that it belongs to."""

STAMP = "trained.txt"


def recipe(packed: Path | None = None) -> str:
    """A fingerprint of packed files: those of PACKED, or of another folder."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(file(name, packed).read_bytes())
    return digest.hexdigest()


def are_unpacked(folder: Path) -> bool:
    """Whether `folder` holds what `unpack` would write."""
    stamp = folder / STAMP
    fresh = stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe()
    return fresh and all(place(folder, name).is_file() for name in FILES)


def unpack(folder: Path, packed: Path | None = None) -> None:
    """Write all files into `folder`, as models folders are laid out; the stamp comes last."""
    for name in FILES:
        target = place(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(read(name, packed))
        part.replace(target)
    (folder / STAMP).write_text(recipe(packed), encoding="utf-8")


def place(folder: Path, name: str) -> Path:
    """Where a file lies in a models folder."""
    return folder / FILES[name] / f"{name}.safetensors"


def read(name: str, packed: Path | None = None) -> bytes:
    """The bytes of a file."""
    return lzma.decompress(file(name, packed).read_bytes())


def file(name: str, packed: Path | None = None) -> Path:
    """Where a file lies packed."""
    return (packed or PACKED) / f"{name}.safetensors.xz"
