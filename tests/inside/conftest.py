"""Tests that hold ComfyUI's own objects. They run in a process of their own: see `test_inside`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runtime import inside
from runtime.models import small_models


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
