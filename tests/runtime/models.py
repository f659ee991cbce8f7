"""Which models a server draws with: a small FLUX or the real files. Standard library only.

There are two small ones, one with random weights for the tests of what is computed, and one that
has learned to draw. Both carry the names of the real ones, so workflows run on any, unmodified.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_flux import trained
from mini_flux.files import are_made

from .comfyui import ComfyUI
from .environment import RUNTIME, VENV, Say, SetupError, locked, run_quietly, venv_python

SMALL = RUNTIME / "models"
TRAINED = RUNTIME / "trained"

_TEXT_ENCODERS = ("models/text_encoders", "models/clip")
_DIFFUSION_MODELS = ("models/diffusion_models", "models/unet")


@dataclass(frozen=True)
class Choice:
    """The models to draw with.

    Attributes:
        server: keyword arguments for `ComfyServer`.
        report: what was chosen and why, for the user.
        real: whether they are the real ones.
    """

    server: dict[str, Any]
    report: str
    real: bool


def ensure_small_models(say: Say) -> Path:
    """Make the small checkpoints if they are not there; the models folder of the random ones."""
    with locked(RUNTIME / "models.lock", say):
        if not are_made(SMALL):
            say("making the small FLUX checkpoints")
            tests = Path(__file__).parents[1]
            command = [str(venv_python(VENV)), "-m", "mini_flux.make", str(SMALL)]
            run_quietly(command, "making the small checkpoints", cwd=tests)
        if not trained.are_unpacked(TRAINED):
            # The trained one has no safety networks of its own.
            shutil.copytree(
                SMALL / "safety_checker", TRAINED / "safety_checker", dirs_exist_ok=True
            )
            trained.unpack(TRAINED)
    return SMALL


def small_models() -> Path:
    """The folder of the small checkpoints that an earlier set-up made.

    Raises:
        SetupError: they are not there, or were made by other code.
    """
    if not are_made(SMALL):
        raise SetupError(
            f"the small FLUX checkpoints in {SMALL} are missing or out of date: "
            "run `python3 dev.py test` to make them."
        )
    return SMALL


def trained_models() -> Path:
    """The folder of the small FLUX that draws, which an earlier set-up unpacked.

    Raises:
        SetupError: it is not there, or is that of other files.
    """
    if not trained.are_unpacked(TRAINED):
        raise SetupError(
            f"the small FLUX in {TRAINED} is missing or out of date: "
            "run `python3 dev.py demo` to unpack it."
        )
    return TRAINED


def choose_models(comfyui: ComfyUI, model: str) -> Choice:
    """The real files of a named ComfyUI if it has all that `model` needs, else the small FLUX."""
    if comfyui.ours:
        return Choice(
            {"models": trained_models()},
            "the small FLUX draws: it knows coloured shapes on coloured grounds",
            real=False,
        )
    missing = missing_models(comfyui.path, model)
    if missing:
        listed = "".join(f"\n  {name}" for name in missing)
        report = f"{comfyui.path} lacks these files, so the small FLUX draws:{listed}"
        return Choice({"models": trained_models()}, report, real=False)
    gpu = comfyui.has_gpu()
    config = RUNTIME / "real_models.yaml"
    config.write_text(models_config(comfyui.path), encoding="utf-8")
    arguments = ("--extra-model-paths-config", str(config))
    return Choice(
        {"arguments": arguments, "cpu": not gpu, "plugin": False},
        f"the models of {comfyui.path} draw, on the {'GPU' if gpu else 'CPU (slow: no GPU found)'}",
        real=True,
    )


def missing_models(folder: Path, model: str) -> list[str]:
    """The real FLUX files that a ComfyUI's own models folders lack, each with where it belongs."""
    wanted = {
        f"flux1-{model}.safetensors": _DIFFUSION_MODELS,
        "ae.safetensors": ("models/vae",),
        "clip_l.safetensors": _TEXT_ENCODERS,
        "t5xxl_fp16.safetensors": _TEXT_ENCODERS,
    }
    return [
        f"{places[0]}/{name}"
        for name, places in wanted.items()
        if not any((folder / place / name).is_file() for place in places)
    ]


def models_config(folder: Path) -> str:
    """An extra_model_paths file that adds a ComfyUI's models (JSON, which is YAML as well)."""
    paths = {
        "base_path": str(folder),
        "diffusion_models": "\n".join(_DIFFUSION_MODELS),
        "text_encoders": "\n".join(_TEXT_ENCODERS),
        "vae": "models/vae",
        "loras": "models/loras",
        "clip_vision": "models/clip_vision",
    }
    return json.dumps({"comfyui": paths}, indent=1)
