"""FLUX.1 models from files: where they lie, which route they run on, how they are loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import MissingFileError
from ..ops.recent import Recent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from .checkpoint import Checkpoint
    from .trial import Choice

FOLDERS: Final = ("diffusion_models", "checkpoints")
DEFAULT_FILES: Final = {
    "dev": "flux1-dev.safetensors",
    "schnell": "flux1-schnell.safetensors",
}
DOWNLOADS: Final = {
    "dev": "https://huggingface.co/black-forest-labs/FLUX.1-dev",
    "schnell": "https://huggingface.co/Comfy-Org/flux1-schnell",
}
CACHE_FOLDER: Final = "flux_hotswap_int8"
SCALES_FOLDER: Final = "flux_hotswap_fp8"
_SAFETENSORS: Final = (".safetensors", ".sft")

HOW: Final = "flux_hotswap_how"
"""The attachment by which a MODEL says how it computes."""

ROUTE: Final = "flux_hotswap_route"
"""The attachment by which a MODEL says on which route it runs."""

FP8: Final = "fp8"
"""The hosted model's own arithmetic."""

FAST: Final = "fast"
"""The route of go_fast, whichever engine runs there."""

TOLD: Final = "flux_hotswap_told"
"""The wrapper by which a model is told the noise level in bf16."""

recent = Recent()
"""What the last prompt loaded and patched, for the next."""


@dataclass(frozen=True)
class Route:
    """How a model computes.

    Attributes:
        kind: "fast" where go_fast is on, else "bf16": what LoRA strengths go by.
        engine: "int8", "int8 storage", "bf16", "fp8", or the format of a file that is quantised
            already and run by ComfyUI.
        reason: why, or how.
    """

    kind: str
    engine: str
    reason: str

    def __str__(self) -> str:
        """Return it in words, such as "bf16 (custom size)"."""
        return f"{self.engine} ({self.reason})"


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


def load(
    path: Path,
    model: str,
    *,
    go_fast: bool,
    modulation: str,
    engine: str = "auto",
    clip: Any = None,
    dynamic: bool = True,
) -> tuple[ModelPatcher, Route]:
    """Return the model of a file, and how it computes.

    Args:
        path: the file.
        model: dev or schnell, which it must hold where it is in the hosted engine's format.
        go_fast: off, it computes in bf16.
        modulation: "int8" to have the modulation layers in int8 too, where int8 runs.
        engine: of go_fast: "auto", "int8" or "fp8".
        clip: the text encoders, by which engine fp8 finds the scales of inputs; None to let it
            measure each call.
        dynamic: False for weights that ComfyUI moves as a whole, where it has another way.

    Raises:
        CheckpointError: the file cannot be used.
    """
    asked = {"go_fast": go_fast, "modulation": modulation, "engine": engine}
    made: Any
    made, route = _load(path, model, **asked, clip=clip, dynamic=dynamic)
    # By this ComfyUI makes clones on other cards, and one that hook LoRAs can be put into.
    made.cached_patcher_init = (_load_again, (path, model, asked))
    return made, route


def _load_again(
    path: Path, model: str, asked: dict[str, Any], disable_dynamic: bool = False
) -> ModelPatcher:
    """Return a model once more, with weights of its own; the signature is ComfyUI's."""
    return load(path, model, **asked, dynamic=not disable_dynamic)[0]


def _load(
    path: Path,
    model: str,
    *,
    go_fast: bool,
    modulation: str,
    engine: str,
    clip: Any,
    dynamic: bool,
) -> tuple[ModelPatcher, Route]:
    from .beside import attached, quantised_layers
    from .checkpoint import look_at

    named = _named(engine)
    fp8 = go_fast and named is not None and named.engine == FP8
    # ComfyUI says little of what is wrong with a file, and runs a model that lacks blocks.
    looked = go_fast or path.suffix.lower() in _SAFETENSORS
    checkpoint = look_at(path) if looked else None
    if checkpoint is not None and (checkpoint.is_hosted or fp8):
        import comfy.model_management

        from .hosted_files import load_hosted

        device = comfy.model_management.get_torch_device()
        return load_hosted(checkpoint, model, device, go_fast=go_fast, clip=clip, dynamic=dynamic)
    if checkpoint is not None and go_fast:
        made, route = _fast(checkpoint, modulation == "int8", named, dynamic=dynamic)
    else:
        made, route = load_flux(path, dynamic=dynamic), Route("bf16", "bf16", "go_fast off")
    if quantised_layers(made):
        attached(made.model)
    tell_in_bf16(made)
    return made, route


def _named(engine: str) -> Choice | None:
    """Return the engine that the administrator chose, or else the user; None for the trial."""
    from .trial import VARIABLE, named_engine

    return named_engine(os.environ.get(VARIABLE), engine)


def load_flux(path: Path, *, dynamic: bool = True) -> ModelPatcher:
    """Load a FLUX.1 diffusion model as ComfyUI's own loader does.

    Args:
        path: the file.
        dynamic: see `load`.

    Raises:
        CheckpointError: the file holds something else.
    """
    import comfy.sd

    from ..ops.full import is_full
    from .checkpoint import checked, unknown

    try:
        made = comfy.sd.load_diffusion_model(str(path), **management(dynamic))
    except (RuntimeError, KeyError, ValueError) as error:  # the last two: formats it does not know
        if is_full(error):  # ComfyUI says it, and makes room
            raise
        raise unknown(path.name, f" ({error})") from error
    return checked(made, path.name)


def management(dynamic: bool) -> dict[str, Any]:
    """Return what says to ComfyUI's loaders how it is to move a model's weights."""
    return {} if dynamic else {"disable_dynamic": True}


def load_fast(path: Path, *, modulation: bool) -> tuple[ModelPatcher, Route]:
    """Load a FLUX.1 diffusion model as fast as this machine runs it; tests and benchmarks do.

    Args:
        path: in bf16, fp16, float32 or quantised already.
        modulation: whether the modulation layers go to int8 too.

    Raises:
        CheckpointError: the file cannot be used.
    """
    from .checkpoint import look_at

    return _fast(look_at(path), modulation, _named("auto"), dynamic=True)


def _fast(
    checkpoint: Checkpoint, modulation: bool, named: Choice | None, *, dynamic: bool
) -> tuple[ModelPatcher, Route]:
    from .checkpoint import in_memory
    from .trial import choose

    path = checkpoint.source.path
    if checkpoint.quantised_as:
        names = " and ".join(checkpoint.quantised_as)
        made = load_flux(path, dynamic=dynamic)
        return made, Route(FAST, names, "as the file is, run by ComfyUI")
    choice = choose(2 * checkpoint.values, named)
    if choice.engine == "bf16":
        return load_flux(path, dynamic=dynamic), Route(FAST, "bf16", choice.reason)
    matmul = choice.engine == "int8"
    made = _load_int8(checkpoint, modulation, matmul=matmul, dynamic=dynamic)
    how = "int8" if matmul else "int8 storage"
    return made, Route(FAST, how, f"{choice.reason}{in_memory(made)}")


def _load_int8(
    checkpoint: Checkpoint, modulation: bool, *, matmul: bool, dynamic: bool
) -> ModelPatcher:
    """Return the model in int8: by ComfyUI where it runs the format fast, else by our layers."""
    import comfy.sd

    from ..ops.checkpoint.convert import described
    from .checkpoint import build, checked
    from .fetching import progress_bar
    from .kept import SIZE, Job, cache_bytes, read_state
    from .trial import any_matmul

    source = checkpoint.source
    job = Job(
        source,
        checkpoint.targets,
        checkpoint.head,
        modulation,
        folder=own_folder() / CACHE_FOLDER,
        room=cache_bytes(os.environ.get(SIZE)),
        on_progress=interruptible(progress_bar()),
    )
    file = job.file()
    if not (matmul and core_knows_int8()):
        state = job.state() if file is None else read_state(file)
        return build(state, any_matmul() if matmul else None, source.path.name)
    if file is not None:
        made = comfy.sd.load_diffusion_model(str(file), **management(dynamic))
    else:
        state = described(job.state(), job.quantised)
        made = comfy.sd.load_diffusion_model_state_dict(state, **management(dynamic))
    return checked(made, source.path.name)


def core_knows_int8() -> bool:
    """Whether this ComfyUI runs the format itself."""
    import comfy.quant_ops

    return "int8_tensorwise" in comfy.quant_ops.QUANT_ALGOS


def interruptible(tell: Any) -> Any:
    """Return a progress callback that ends when the user presses cancel."""
    import comfy.model_management

    def told(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        tell(done, total)

    return told


def tell_in_bf16(model: ModelPatcher) -> None:
    """Let a model that computes in bf16 be told the noise level in it, as on the hosted model.

    ComfyUI says 1000 times the level in float32. The hosted engines round the level to bf16, and
    1000 times that again.
    """
    import comfy.patcher_extension
    import torch

    def told(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.dtype == torch.bfloat16:
            timestep = timestep.to(torch.bfloat16)  # ComfyUI multiplies it in its own dtype
        return executor(x, timestep, *args, **kwargs)

    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, TOLD, told)
