"""Models on engine fp8, from files of the hosted fast engine and from ordinary checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import CheckpointError
from ..files.disk import write_whole
from ..prediction.plan import SCHNELL_STEPS, T5_LENGTH
from ..prediction.schedule import full_schedule
from ..prediction.sizes import Size
from .fetching import progress_bar
from .models import FAST, FP8, SCALES_FOLDER, Route, interruptible, own_folder
from .room import make_room
from .trial import VARIABLE

if TYPE_CHECKING:
    import torch
    from comfy.model_patcher import ModelPatcher

    from .checkpoint import Checkpoint

PROMPT: Final = (
    "A beautiful test image used to solidify the fp8 nn.Linear input scales prior to compilation "
    "\N{WINKING FACE}"
)
"""What the hosted model draws to find the scales of its layers' inputs."""
SIZE: Final = Size(768, 768)
SEED: Final = 10
GUIDANCE: Final = 3.5
RUNS: Final = {"dev": (1, 12), "schnell": (3, SCHNELL_STEPS)}
"""Of each model, how many pictures and in how many steps: 12 calls of each layer."""

log = logging.getLogger(__name__)


def load_hosted(
    checkpoint: Checkpoint,
    model: str,
    device: torch.device,
    *,
    go_fast: bool,
    clip: Any,
    dynamic: bool,
) -> tuple[ModelPatcher, Route]:
    """Return a model on the hosted fast engine, and how it computes.

    Where the device has no fp8, a file of that engine runs in bf16.

    Args:
        checkpoint: in that engine's format, or an ordinary one.
        model: dev or schnell, which the file must hold.
        device: where ComfyUI computes.
        go_fast: off, a file of that engine runs in bf16.
        clip: the text encoders, to find the scales of inputs by; or None.
        dynamic: see `models.load`.

    Raises:
        CheckpointError: the file cannot be used, or not in fp8 on this device.
    """
    if checkpoint.is_hosted:
        return _of_hosted_file(checkpoint, model, device, go_fast=go_fast, dynamic=dynamic)
    from ..ops.checkpoint.hosted import quantise
    from ..ops.hosted.quantise import has_fp8
    from .hosted import build

    if not has_fp8(device):
        raise CheckpointError(
            f"{checkpoint.source.path.name} cannot run on engine fp8: {device.type} has no numbers "
            f"in fp8. Set engine to auto, or {VARIABLE} where that says fp8"
        )
    _check_model(checkpoint, [target.name for target in checkpoint.targets], model)
    tell = interruptible(progress_bar())
    make_room(device)
    state = quantise(checkpoint.source, checkpoint.targets, device, tell)
    made = build(state, checkpoint.source.path.name)
    return made, _route(made, _find_scales(made, checkpoint, model, clip))


def _of_hosted_file(
    checkpoint: Checkpoint, model: str, device: torch.device, *, go_fast: bool, dynamic: bool
) -> tuple[ModelPatcher, Route]:
    import comfy.sd

    from ..ops.checkpoint.hosted import adopt, dequantise
    from ..ops.hosted.quantise import has_fp8
    from .checkpoint import checked
    from .hosted import build
    from .kept import read_state
    from .models import management, tell_in_bf16

    path = checkpoint.source.path
    _check_model(checkpoint, list(checkpoint.source.tensors), model)
    state = adopt(read_state(path), path.name, interruptible(progress_bar()))
    if go_fast and has_fp8(device):
        made = build(state, path.name)
        return made, _route(made, "input scales of the file")
    load: Any = comfy.sd.load_diffusion_model_state_dict
    made = checked(load(dequantise(state), **management(dynamic)), path.name)
    tell_in_bf16(made)
    kind, why = (FAST, f"{device.type} has no fp8") if go_fast else ("bf16", "go_fast off")
    return made, Route(kind, "bf16", f"{why}; the weights of this file are rounded to fp8")


def _check_model(checkpoint: Checkpoint, names: list[str], model: str) -> None:
    from ..ops.checkpoint.hosted_file import is_dev

    held = "dev" if is_dev(names) else "schnell"
    if held != model:
        raise CheckpointError(
            f"{checkpoint.source.path.name} holds FLUX.1 {held}, and {model} is asked for: choose "
            f"it as {held}_file, and a file of {model} as {model}_file"
        )


def _route(model: ModelPatcher, scales: str) -> Route:
    import comfy.model_management

    from ..ops.hosted.linear import by_device, find_product
    from .checkpoint import in_memory

    device = comfy.model_management.get_torch_device()
    how = "as hosted"
    if find_product(device) is not by_device:
        how += f", slowly: no fp8 matmul on {device.type}"
    return Route(FAST, FP8, f"{how}; {scales}{in_memory(model)}")


# --- the scales of inputs ---


def _find_scales(model: ModelPatcher, checkpoint: Checkpoint, name: str, clip: Any) -> str:
    """Give the layers their scales, those kept before or found now; where they come from."""
    from .hosted import hosted_layers
    from .kept import print_of

    key = print_of(checkpoint.source, checkpoint.head)
    source = checkpoint.source.path
    path = own_folder() / SCALES_FOLDER / f"{source.stem[:50]}-{key[:12]}.json"
    scales = _read(path, key, set(hosted_layers(model.model)))
    if scales is None and clip is None:
        return "input scales measured in each call; connect clip to the Loader to calibrate them"
    if scales is None:
        scales = calibrate(model, name, clip)
        text = json.dumps({"source": source.name, "key": key, "input_scales": scales}, indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text, by=path.with_suffix(f".{os.getpid()}.part"))
        except OSError as error:
            log.warning("The input scales of %s cannot be kept: %s", source.name, error)
    _give(model, scales)
    return "input scales calibrated as hosted"


def _read(path: Path, key: str, layers: set[str]) -> dict[str, float] | None:
    """Return the scales that were kept; None if there are none, or not one for each layer."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        scales = {str(name): float(value) for name, value in found["input_scales"].items()}
        if found["key"] != key:
            return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged and is not used (%r)", path, error)
        return None
    if scales.keys() != layers or not all(0 < value < math.inf for value in scales.values()):
        log.warning("%s is damaged and is not used: it does not have a scale for each layer", path)
        return None
    return scales


def _give(model: ModelPatcher, scales: dict[str, float]) -> None:
    import torch

    from .hosted import hosted_layers

    for name, layer in hosted_layers(model.model).items():
        layer.calibration = None
        on = layer.weight.device
        layer.take("input_scale", torch.tensor(scales[name], dtype=torch.float32, device=on))


def calibrate(model: ModelPatcher, name: str, clip: Any) -> dict[str, float]:
    """Find the scales of a model's inputs as the hosted model does, by drawing a picture.

    Args:
        model: whose layers have none yet.
        name: dev or schnell.
        clip: the text encoders.

    Returns:
        The scale of each layer's inputs, by the layer's name.

    Raises:
        InputError: clip holds other text encoders than FLUX's.
    """
    import comfy.samplers
    import node_helpers
    import torch

    from ..ops.hosted.quantise import Calibration
    from ..ops.noise import hosted_noise
    from .hosted import hosted_layers
    from .text import flux_tokens

    layers = hosted_layers(model.model)
    watching = {layer: Calibration() for layer in layers}
    for layer, calibration in watching.items():
        layers[layer].calibration = calibration
    tokens = flux_tokens(clip, PROMPT, T5_LENGTH[name])
    guidance = {"guidance": GUIDANCE} if name == "dev" else {}
    encoded = clip.encode_from_tokens_scheduled(tokens)
    guider: Any = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": node_helpers.conditioning_set_values(encoded, guidance)})
    pictures, steps = RUNS[name]
    tell = interruptible(progress_bar())
    height, width = SIZE.height // 8, SIZE.width // 8
    noise = hosted_noise(SEED, batch=1, height=height, width=width)
    for picture in range(pictures):
        guider.sample(
            noise,
            torch.zeros_like(noise),
            comfy.samplers.sampler_object("euler"),
            torch.tensor(full_schedule(name, steps, SIZE.tokens)),
            callback=lambda step, *_, at=picture: tell(at * steps + step + 1, pictures * steps),
            disable_pbar=True,
            seed=SEED,
        )
    return {layer: float(calibration.scale) for layer, calibration in watching.items()}
