"""FluxHotswapLoader: the dev or schnell model on the route that the request takes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from comfy_api.latest import io

from ..engine.models import (
    DEFAULT_FILES,
    FAST,
    FOLDERS,
    HOW,
    ROUTE,
    load,
    model_files,
    model_path,
    recent,
)
from ..prediction.spec import FIELD, MODELS
from .base import CATEGORY, Choice, FilesChoice, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

MODULATIONS: Final = ("bf16", "int8")

log = logging.getLogger(__name__)


class FluxHotswapLoader(io.ComfyNode):
    """Loads the FLUX.1 model that the request names, in int8 or bf16."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        files = model_files()
        return io.Schema(
            node_id="FluxHotswapLoader",
            display_name="FLUX Hotswap Loader",
            category=CATEGORY,
            **aliases("flux loader", "load flux", "unet loader", "int8"),
            description="Loads FLUX.1 dev or schnell, whichever the request names.",
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
                field_input(FIELD["model"], tooltip="Which of the two files is loaded."),
                field_input(
                    FIELD["go_fast"],
                    tooltip="Run the model in fp8. Off, the file runs as ComfyUI loads it.",
                ),
                Choice.Input(
                    "modulation",
                    options=list(MODULATIONS),
                    default=MODULATIONS[0],
                    optional=True,
                    tooltip="Precision of the modulation layers when go_fast is on. bf16 is nearer "
                    "to the original, int8 takes 3.2 GB less memory.",
                ),
            ],
            outputs=[
                io.Model.Output("out_model", display_name="MODEL", tooltip="The FLUX.1 model."),
                io.String.Output(
                    "out_report",
                    display_name="report",
                    tooltip="Which route runs, fp8 or bf16, and why.",
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
            go_fast = request.plan.route == FAST
        path = model_path(dev_file if model == "dev" else schnell_file, model)
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns, modulation if go_fast else "bf16 route")
        patcher = recent.take(key)
        if patcher is None:
            recent.let_go()
            patcher, how = load(path, go_fast=go_fast, modulation=modulation)
            patcher.set_attachments(HOW, how)
            recent.note(key, patcher)
        loaded: Any = patcher.get_attachment(HOW)
        route = loaded if go_fast or not reason else replace(loaded, reason=reason)
        log.info("FLUX.1 %s runs in %s", model, route)
        patcher.set_attachments(ROUTE, route.kind)
        done = {"model": model, "checkpoint": path.name}
        note(cls, **done, engine=route.engine, engine_reason=route.reason)
        return io.NodeOutput(patcher, str(route))
