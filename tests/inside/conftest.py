"""Tests that hold ComfyUI's own objects. They run in a process of their own: see `test_inside`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import DEV, State
from runtime.models import small_models
from safetensors.torch import load_file


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with links to the small FLUX; what is quantised lands beside them."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("checkpoints", "loras"):
        (folder / name).mkdir()
    target = folder / "diffusion_models"
    target.mkdir()
    for file in (small_models() / "diffusion_models").glob("*.safetensors"):
        (target / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="session")
def comfy(models: Path) -> Any:
    """ComfyUI's own modules, on the CPU."""
    inside.start("--cpu", models=models)
    import comfy.model_management

    return comfy


@pytest.fixture(autouse=True)
def as_in_comfyui(comfy: Any) -> Any:
    """Nodes run in inference mode."""
    with torch.inference_mode():
        yield
        comfy.model_management.unload_all_models()


@pytest.fixture(scope="session")
def full(comfy: Any, models: Path) -> Any:
    with torch.inference_mode():
        return inside.pack("engine.models").load_flux(models / "diffusion_models" / DEV)


@pytest.fixture(scope="session")
def weights(models: Path) -> State:
    return {k: v.float() for k, v in load_file(models / "diffusion_models" / DEV).items()}


@pytest.fixture
def applied(models: Path, full: Any) -> Callable[..., tuple[Any, Any]]:
    """Writes a file, applies it; the model with it and how it fitted."""

    def apply(state: State, strength: float = 1.0, metadata: Any = None) -> tuple[Any, Any]:
        path = models / "loras" / "some.safetensors"
        loras.write(state, path, metadata)
        made, _, fitted = inside.pack("engine.loras").apply(path, full, None, strength)
        return made, fitted.fit

    return apply


@pytest.fixture(scope="session")
def clip(comfy: Any) -> Any:
    import comfy.sd

    folder = small_models() / "text_encoders"
    files = [str(folder / name) for name in ("clip_l.safetensors", "t5xxl_fp16.safetensors")]
    with torch.inference_mode():
        return comfy.sd.load_clip(files, clip_type=comfy.sd.CLIPType.FLUX)
