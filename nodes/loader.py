"""FluxHotswapLoader: the dev or schnell model on the route that the request takes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ..prediction.errors import HotswapError, MissingFileError
from ..prediction.spec import FIELD, MODELS
from .base import CATEGORY, ROUTE, aliases, field_input, files_choice

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

FOLDER: Final = "diffusion_models"
DEFAULT_FILES: Final = {
    "dev": "flux1-dev.safetensors",
    "schnell": "flux1-schnell.safetensors",
}
DOWNLOADS: Final = {
    "dev": "https://huggingface.co/black-forest-labs/FLUX.1-dev",
    "schnell": "https://huggingface.co/black-forest-labs/FLUX.1-schnell",
}

log = logging.getLogger(__name__)


class FluxHotswapLoader(io.ComfyNode):
    """Loads the FLUX.1 model that the request names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        import folder_paths

        files = folder_paths.get_filename_list(FOLDER)
        return io.Schema(
            node_id="FluxHotswapLoader",
            display_name="FLUX Hotswap Loader",
            category=CATEGORY,
            **aliases("flux loader", "load flux", "unet loader", "fp8"),
            description="Loads FLUX.1 dev or schnell, whichever the request names.",
            inputs=[
                *(
                    files_choice(
                        f"{model}_file",
                        files,
                        DEFAULT_FILES[model],
                        f"FLUX.1 {model}, from models/{FOLDER}. Read only when model is {model}.",
                    )
                    for model in MODELS
                ),
                field_input(FIELD["model"]),
                field_input(FIELD["go_fast"]),
                io.String.Input(
                    "route_reason",
                    optional=True,
                    force_input=True,
                    tooltip="Why go_fast is on or off, from the Inputs node; used in the report.",
                ),
            ],
            outputs=[
                io.Model.Output("out_model", display_name="MODEL", tooltip="The FLUX.1 model."),
                io.String.Output(
                    "out_report", display_name="report", tooltip="Which route runs, and why."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, dev_file: str | None = None, schnell_file: str | None = None, model: str | None = None
    ) -> bool | str:
        """Ask only for the file that the request needs; the other may be missing."""
        if model is None:  # linked: known when the node runs
            return True
        if model not in MODELS:
            return f"model: {model!r} is not allowed; {FIELD['model'].allowed}"
        name = dev_file if model == "dev" else schnell_file
        try:
            if name is not None:
                model_path(name, model)
        except MissingFileError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        dev_file: str,
        schnell_file: str,
        model: str = "dev",
        go_fast: bool = True,
        route_reason: str = "",
    ) -> io.NodeOutput:
        """Load the file of the chosen model."""
        report = route_report(go_fast, route_reason)
        log.info("FLUX.1 %s runs in %s", model, report)
        path = model_path(dev_file if model == "dev" else schnell_file, model)
        route, _, reason = report.partition(" ")
        shown = {"route": route, "route_reason": reason.strip("()")}
        patcher = load_flux(path)
        patcher.set_attachments(ROUTE, route)
        return io.NodeOutput(patcher, report, ui={"flux_hotswap": [shown]})


def route_report(go_fast: bool, reason: str) -> str:
    """Return which route runs and why, such as "bf16 (custom size)"."""
    if go_fast:
        return "bf16 (go_fast is not available yet)"
    return f"bf16 ({reason or 'go_fast off'})"


def model_path(name: str, model: str) -> Path:
    """Return where the model file called name lies.

    Raises:
        MissingFileError: it is in none of ComfyUI's folders for diffusion models.
    """
    import folder_paths

    path = folder_paths.get_full_path(FOLDER, name)
    if path is not None:
        return Path(path)
    folders = folder_paths.get_folder_paths(FOLDER)  # the older models/unet may stand first
    folder = next((entry for entry in folders if Path(entry).name == FOLDER), folders[0])
    raise MissingFileError(
        name,
        f"{name} is not in {folder}; "
        f"download FLUX.1 {model} from {DOWNLOADS[model]} and put it there",
    )


def load_flux(path: Path) -> ModelPatcher:
    """Load a FLUX.1 diffusion model as ComfyUI's own loader does.

    Raises:
        HotswapError: the file holds something else.
    """
    import comfy.sd

    wrong = f"{path.name} does not hold a FLUX.1 model; choose flux1-dev or flux1-schnell"
    try:
        patcher: Any = comfy.sd.load_diffusion_model(str(path))
    except RuntimeError as error:
        raise HotswapError(f"{wrong} ({error})") from error
    if patcher.model.model_config.unet_config.get("image_model") != "flux":
        raise HotswapError(wrong)
    return patcher
