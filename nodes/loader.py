"""FluxHotswapLoader: the dev or schnell model on the route that the request takes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final, cast

from comfy_api.latest import io

from ..engine.models import (
    DEFAULT_FILES,
    FAST,
    FOLDERS,
    HOW,
    ROUTE,
    Route,
    load,
    model_files,
    model_path,
    recent,
)
from ..prediction.spec import FIELD, MODELS
from .base import CATEGORY, Choice, FilesChoice, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

ENGINES: Final = ("auto", "int8", "fp8")
MODULATIONS: Final = ("bf16", "int8")

log = logging.getLogger(__name__)


class FluxHotswapLoader(io.ComfyNode):
    """Loads the FLUX.1 model that the request names, on the engine that suits."""

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
                    tooltip="Run the model on a fast engine. Off, it runs as ComfyUI loads it.",
                ),
                Choice.Input(
                    "engine",
                    options=list(ENGINES),
                    default=ENGINES[0],
                    optional=True,
                    tooltip="How go_fast computes. auto: the faster of int8 and bf16 here, and fp8 "
                    "for a file in the hosted model's format. fp8: the hosted model's arithmetic "
                    "with its roundings.",
                ),
                Choice.Input(
                    "modulation",
                    options=list(MODULATIONS),
                    default=MODULATIONS[0],
                    optional=True,
                    tooltip="Precision of the modulation layers when go_fast is on. bf16 is nearer "
                    "to the original, int8 takes 3.2 GB less memory.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoders, for engine fp8 with an ordinary file. One picture "
                    "is drawn when the file is first loaded, to find the range of each layer's "
                    "inputs as the hosted model does. Without, each call is measured.",
                ),
            ],
            outputs=[
                io.Model.Output("out_model", display_name="MODEL", tooltip="The FLUX.1 model."),
                io.String.Output(
                    "out_report",
                    display_name="report",
                    tooltip="Which engine runs, and why.",
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
        engine: str = ENGINES[0],
        modulation: str = MODULATIONS[0],
        clip: Any = None,
    ) -> io.NodeOutput:
        """Load the file of the chosen model."""
        reason = ""
        if request is not None:
            model, reason = request.plan.model, request.plan.route_reason
            go_fast = request.plan.route == FAST
        path = model_path(dev_file if model == "dev" else schnell_file, model)
        state = path.stat()
        how = (engine, modulation, clip is not None) if go_fast else ("bf16 route",)
        key = (str(path), state.st_size, state.st_mtime_ns, model, *how)
        patcher = recent.take(key)
        if patcher is None:
            recent.let_go()
            patcher, loaded = load(
                path, model, go_fast=go_fast, modulation=modulation, engine=engine, clip=clip
            )
            patcher.set_attachments(HOW, loaded)
            recent.note(key, patcher)
        loaded = cast("Route", patcher.get_attachment(HOW))
        route = loaded if go_fast or not reason else replace(loaded, reason=reason)
        log.info("FLUX.1 %s runs in %s", model, route)
        patcher.set_attachments(ROUTE, route.kind)
        done = {"model": model, "checkpoint": path.name}
        note(cls, **done, engine=route.engine, engine_reason=route.reason)
        return io.NodeOutput(patcher, str(route))
