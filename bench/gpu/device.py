"""Stage 0: which card, driver and versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess

import torch
from runtime import inside

from .kit import Kit

PACKAGES = ("torch", "triton", "comfy-kitchen", "transformers", "safetensors", "torchsde")


def run(kit: Kit) -> None:
    """Note what the measurements depend on."""
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    kit.note("packages", ", ".join(versions))
    if kit.device.type == "cuda":
        about = torch.cuda.get_device_properties(kit.device)
        kit.note("card", about.name)
        kit.note("compute capability", f"{about.major}.{about.minor}")
        kit.note("multiprocessors", about.multi_processor_count)
        kit.note("memory", round(about.total_memory / 1e9, 1), "GB")
        kit.note("CUDA of torch", str(torch.version.cuda))
        kit.note("driver", driver())
    else:
        kit.note("card", "none: CPU")
    kit.start_comfyui()
    import comfyui_version

    kit.note("ComfyUI", comfyui_version.__version__)
    kit.note("back ends of comfy-kitchen", back_ends())
    models, trial = inside.pack("engine.models"), inside.pack("engine.trial")
    kit.note("ComfyUI runs int8 itself", models.core_knows_int8())
    choice = trial.choose(24 * 10**9, None)
    kit.note("go_fast would choose", f"{choice.engine} ({choice.reason})")


def version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def driver() -> str:
    """Return the version of the driver."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: there is no nvidia-smi"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def back_ends() -> str:
    """Return which kernels comfy-kitchen has here."""
    if importlib.util.find_spec("comfy_kitchen") is None:
        return "not installed"
    import comfy_kitchen

    found = comfy_kitchen.list_backends()
    return ", ".join(name for name, about in found.items() if about.get("available"))
