"""FluxHotswapLoader: the dev or schnell model on the route that the request takes."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ..ops.recent import Recent
from ..prediction.errors import HotswapError, MissingFileError
from ..prediction.spec import FIELD, MODELS
from .base import CATEGORY, ROUTE, Choice, FilesChoice, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

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
MODULATIONS: Final = ("bf16", "fp8")
_SAFETENSORS: Final = (".safetensors", ".sft")

HOW: Final = "flux_hotswap_how"
"""The attachment by which a MODEL says how it computes."""

log = logging.getLogger(__name__)
recent = Recent()


class FluxHotswapLoader(io.ComfyNode):
    """Loads the FLUX.1 model that the request names, in fp8 or bf16."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        files = model_files()
        return io.Schema(
            node_id="FluxHotswapLoader",
            display_name="FLUX Hotswap Loader",
            category=CATEGORY,
            **aliases("flux loader", "load flux", "unet loader", "fp8"),
            description="Loads FLUX.1 dev or schnell, whichever the request names, in fp8 or bf16.",
            inputs=[
                request_input("the model and the route"),
                *(
                    FilesChoice(
                        f"{model}_file",
                        files,
                        DEFAULT_FILES[model],
                        f"FLUX.1 {model}, from models/{FOLDERS[0]} or models/{FOLDERS[1]}. "
                        f"Read only when model is {model}.",
                    )
                    for model in MODELS
                ),
                field_input(FIELD["model"]),
                field_input(FIELD["go_fast"]),
                Choice.Input(
                    "modulation",
                    options=list(MODULATIONS),
                    default=MODULATIONS[0],
                    optional=True,
                    tooltip="How go_fast keeps the layers that steer the blocks. bf16 is nearer to "
                    "the original, fp8 takes 3.2 GB less memory.",
                ),
            ],
            outputs=[
                io.Model.Output("out_model", display_name="MODEL", tooltip="The FLUX.1 model."),
                io.String.Output(
                    "out_report", display_name="report", tooltip="Which route runs, and why."
                ),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Keep the last prompt's model for this one; ComfyUI asks before it lets go of it."""
        recent.hold()
        return ""

    @classmethod
    def execute(
        cls,
        dev_file: str,
        schnell_file: str,
        request: Prediction | None = None,
        model: str = "dev",
        go_fast: bool = True,
        modulation: str = MODULATIONS[0],
    ) -> io.NodeOutput:
        """Load the file of the chosen model."""
        reason = ""
        if request is not None:
            model, reason = request.plan.model, request.plan.route_reason
            go_fast = request.plan.route == "fp8"
        path = model_path(dev_file if model == "dev" else schnell_file, model)
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns, modulation if go_fast else "bf16 route")
        patcher = recent.take(key)
        if patcher is None:
            recent.let_go()
            patcher, how = load(path, go_fast=go_fast, modulation=modulation)
            patcher.set_attachments(HOW, how)
            recent.note(key, patcher)
        how = str(patcher.get_attachment(HOW))
        route = Route("fp8", how) if go_fast else Route("bf16", reason or how)
        log.info("FLUX.1 %s runs in %s", model, route)
        patcher.set_attachments(ROUTE, route.kind)
        done = {"model": model, "checkpoint": path.name}
        note(cls, **done, engine=route.kind, engine_reason=route.reason)
        return io.NodeOutput(patcher, str(route))


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
        HotswapError: the file cannot be used.
    """
    if not go_fast:
        return load_flux(path), "go_fast off"
    patcher, route = load_fast(path, modulation=modulation == "fp8")
    return patcher, route.reason


def load_flux(path: Path) -> ModelPatcher:
    """Load a FLUX.1 diffusion model as ComfyUI's own loader does.

    Raises:
        HotswapError: the file holds something else.
    """
    import comfy.sd

    from .fp8_load import look_at

    if path.suffix.lower() in _SAFETENSORS:
        look_at(path)  # the core says little of what is wrong, and runs a model that lacks blocks
    wrong = f"{path.name} does not hold a FLUX.1 model; choose flux1-dev or flux1-schnell"
    try:
        patcher: Any = comfy.sd.load_diffusion_model(str(path))
    except RuntimeError as error:
        raise HotswapError(f"{wrong} ({error})") from error
    if patcher.model.model_config.unet_config.get("image_model") != "flux":
        raise HotswapError(wrong)
    return patcher


def load_fast(path: Path, *, modulation: bool) -> tuple[ModelPatcher, Route]:
    """Load a FLUX.1 diffusion model in fp8.

    Args:
        path: in bf16, fp16, float32 or quantised already.
        modulation: whether the modulation layers go to fp8 too.

    Raises:
        HotswapError: the file cannot be used.
    """
    from ..ops.fp8.layout import CheckpointError
    from .fetching import progress_bar
    from .fp8_cache import SIZE, Job, cache_bytes
    from .fp8_load import build, look_at, stored_state

    checkpoint = look_at(path)
    if not checkpoint.is_ours_to_load:
        kinds = " and ".join(checkpoint.quantised_as)
        return load_flux(path), Route("fp8", f"as ComfyUI runs {kinds} files")
    matmul, how = fastest()
    try:
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
    except CheckpointError as error:
        raise HotswapError(str(error)) from error
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
