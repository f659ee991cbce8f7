"""FLUX.1 models from files: where they lie, which route they run on, how they are loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import CheckpointError, MissingFileError
from ..ops.recent import Recent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..ops.fp8.matmul import Matmul

FOLDERS: Final = ("diffusion_models", "checkpoints")
DEFAULT_FILES: Final = {
    "dev": "flux1-dev.safetensors",
    "schnell": "flux1-schnell.safetensors",
}
DOWNLOADS: Final = {
    "dev": "https://huggingface.co/black-forest-labs/FLUX.1-dev",
    "schnell": "https://huggingface.co/black-forest-labs/FLUX.1-schnell",
}
CACHE_FOLDER: Final = "flux_hotswap_fp8"
_SAFETENSORS: Final = (".safetensors", ".sft")

HOW: Final = "flux_hotswap_how"
"""The attachment by which a MODEL says how it computes."""

ROUTE: Final = "flux_hotswap_route"
"""The attachment by which a MODEL says on which route it runs."""

recent = Recent()
"""What the last prompt loaded and patched, for the next."""


@dataclass(frozen=True)
class Route:
    """How a model computes.

    Attributes:
        kind: "fp8" or "bf16".
        reason: why, or how.
    """

    kind: str
    reason: str

    def __str__(self) -> str:
        """Return it in words, such as "bf16 (custom size)"."""
        return (
            f"{self.kind} {self.reason}" if self.kind == "fp8" else f"{self.kind} ({self.reason})"
        )


def model_files() -> list[str]:
    """Return the files that may hold a FLUX.1 model, without those that we quantised."""
    import folder_paths

    names = (name for folder in FOLDERS for name in folder_paths.get_filename_list(folder))
    return [name for name in dict.fromkeys(names) if Path(name).parts[0] != CACHE_FOLDER]


def model_path(name: str, model: str) -> Path:
    """Return where the model file called name lies.

    Raises:
        MissingFileError: it is in none of ComfyUI's folders for models.
    """
    import folder_paths

    for folder in FOLDERS:
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return Path(path)
    raise MissingFileError(
        name,
        f"{name} is not in {own_folder()}; "
        f"download FLUX.1 {model} from {DOWNLOADS[model]} and put it there",
    )


def own_folder() -> Path:
    """Return ComfyUI's folder for diffusion models."""
    import folder_paths

    folders = folder_paths.get_folder_paths(FOLDERS[0])  # the older models/unet may stand first
    return Path(next((entry for entry in folders if Path(entry).name == FOLDERS[0]), folders[0]))


def load(path: Path, *, go_fast: bool, modulation: str) -> tuple[ModelPatcher, str]:
    """Return the model of a file, and how it computes.

    Raises:
        CheckpointError: the file cannot be used.
    """
    if not go_fast:
        return load_flux(path), "go_fast off"
    patcher, route = load_fast(path, modulation=modulation == "fp8")
    return patcher, route.reason


def load_flux(path: Path) -> ModelPatcher:
    """Load a FLUX.1 diffusion model as ComfyUI's own loader does.

    Raises:
        CheckpointError: the file holds something else.
    """
    import comfy.sd

    from .fp8_load import look_at

    if path.suffix.lower() in _SAFETENSORS:
        look_at(path)  # the core says little of what is wrong, and runs a model that lacks blocks
    wrong = f"{path.name} does not hold a FLUX.1 model; choose flux1-dev or flux1-schnell"
    try:
        patcher: Any = comfy.sd.load_diffusion_model(str(path))
    except RuntimeError as error:
        raise CheckpointError(f"{wrong} ({error})") from error
    if patcher.model.model_config.unet_config.get("image_model") != "flux":
        raise CheckpointError(wrong)
    return patcher


def load_fast(path: Path, *, modulation: bool) -> tuple[ModelPatcher, Route]:
    """Load a FLUX.1 diffusion model in fp8.

    Args:
        path: in bf16, fp16, float32 or quantised already.
        modulation: whether the modulation layers go to fp8 too.

    Raises:
        CheckpointError: the file cannot be used.
    """
    from .fetching import progress_bar
    from .fp8_cache import SIZE, Job, cache_bytes
    from .fp8_load import build, look_at, stored_state

    checkpoint = look_at(path)
    if not checkpoint.is_ours_to_load:
        kinds = " and ".join(checkpoint.quantised_as)
        return load_flux(path), Route("fp8", f"as ComfyUI runs {kinds} files")
    matmul, how = fastest()
    if checkpoint.quantised_as:
        state = stored_state(checkpoint)
    else:
        state = Job(
            checkpoint.source,
            checkpoint.targets,
            checkpoint.head,
            modulation,
            folder=own_folder() / CACHE_FOLDER,
            room=cache_bytes(os.environ.get(SIZE)),
            on_progress=interruptible(progress_bar()),
        ).state()
    return build(state, matmul, path.name), Route("fp8", how)


def fastest() -> tuple[Matmul | None, str]:
    """Return how this machine multiplies in fp8, None if it does not, and words for it."""
    import comfy.model_management

    from ..ops.fp8.matmul import find_matmul

    device = comfy.model_management.get_torch_device()
    if not comfy.model_management.supports_fp8_compute(device):
        name = "CPU" if device.type == "cpu" else "card"
        return None, f"storage ({name} has no fp8 matmul)"
    matmul = find_matmul(device)
    if matmul is None:
        return None, "storage (the fp8 matmul of this torch does not work here)"
    return matmul, "matmul"


def interruptible(tell: Any) -> Any:
    """Return a progress callback that ends when the user presses cancel."""
    import comfy.model_management

    def told(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        tell(done, total)

    return told
