"""Engine fp8: the hosted model's own arithmetic on ComfyUI's FLUX model.

ComfyUI keeps the model, moves it and samples. What it lets a node say goes another way here: its
linear layers are ours, blocks and the last layer are replaced, the noise level is told in bf16, and
Euler steps are made in bf16 as on the hosted model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ..ops.hosted.blocks import Block, double_block, final_layer, single_block
from ..ops.hosted.primitives import PLAIN, Primitives
from ..ops.hosted.step import euler
from .checkpoint import with_layers
from .hosted_linear import HostedLinear, hosted_operations
from .models import FP8, tell_in_bf16
from .stored_linear import parameter

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

HEARD: Final = "flux_hotswap_prediction"
"""In the options of a run: what the model predicted in this step."""

_WRAPPERS: Final = comfy.patcher_extension.WrappersMP

_CLONED: Final = ("on_deepclone_multigpu", "on_match_multigpu_clones")
"""What newer versions of ComfyUI call when a model gets a clone on another card, (model, clone)."""


def build(state: dict[str, Tensor], name: str, how: Primitives | None = None) -> ModelPatcher:
    """Return a model that computes as the hosted fast engine does.

    Args:
        state: of a FLUX.1 model, as `ops.checkpoint.hosted` gives it.
        name: of the file, for the error.
        how: the sums; None for the device's own.

    Raises:
        CheckpointError: ComfyUI does not know the model.
    """
    model = with_layers(state, hosted_operations(how), name)
    sums = PLAIN if how is None else how
    _replace_parts(model, sums)
    tell_in_bf16(model)
    model.add_wrapper_with_key(_WRAPPERS.DIFFUSION_MODEL, FP8, _hear)
    model.add_wrapper_with_key(_WRAPPERS.SAMPLER_SAMPLE, FP8, _sample)
    for call in _CLONED:
        model.add_callback_with_key(call, FP8, lambda first, clone: _own_parts(first, clone, sums))
    return model


def _replace_parts(model: ModelPatcher, how: Primitives) -> None:
    network: Any = model.model.diffusion_model
    model.add_object_patch("manual_cast_dtype", torch.bfloat16)  # on any device
    model.add_object_patch("diffusion_model.final_layer.forward", _last(network.final_layer))
    for kind, blocks, run in (
        ("double_block", network.double_blocks, _double),
        ("single_block", network.single_blocks, _single),
    ):
        for index, module in enumerate(blocks):
            patch = run(block_of(module, network.num_heads, how))
            model.set_model_patch_replace(patch, "dit", kind, index)


def _own_parts(first: ModelPatcher, clone: ModelPatcher, how: Primitives) -> None:
    """Let a clone with weights of its own, on another card, compute with those.

    ComfyUI hands on what was replaced, which holds the layers of the first card's model, and the
    merged weights, which it moves to where the model is that they are in.
    """
    _replace_parts(clone, how)
    for name, value in clone.object_patches.items():
        if isinstance(value, torch.nn.Parameter):
            clone.object_patches[name] = parameter(value.detach())
    own = hosted_layers(clone.model)
    for name, layer in hosted_layers(first.model).items():
        own[name].take("input_scale", layer.input_scale)


# --- the parts of the model ---

Patch = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def block_of(module: Any, heads: int, how: Primitives) -> Block:
    """Return a block of ComfyUI's FLUX model, with its weights where ComfyUI has them."""

    def linear(name: str, inputs: Tensor) -> Tensor:
        return module.get_submodule(name)(inputs)

    def norm(name: str) -> Tensor:
        found = module.get_submodule(name)
        return found.scale if hasattr(found, "scale") else found.weight  # by ComfyUI's version

    return Block(linear, norm, heads, how.attention)


def _double(block: Block) -> Patch:
    def run(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        if args.get("attn_mask") is not None:  # the hosted model has none
            return extra["original_block"](args)
        table = args["pe"].to(torch.bfloat16)
        img, txt = double_block(block, args["img"], args["txt"], args["vec"], table)
        return {"img": img, "txt": txt}

    return run


def _single(block: Block) -> Patch:
    def run(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        if args.get("attn_mask") is not None:
            return extra["original_block"](args)
        table = args["pe"].to(torch.bfloat16)
        return {"img": single_block(block, args["img"], args["vec"], table)}

    return run


def _last(module: Any) -> Callable[..., Tensor]:
    def linear(name: str, inputs: Tensor) -> Tensor:
        return module.get_submodule(name)(inputs)

    def forward(img: Tensor, vec: Tensor, *_: Any, **__: Any) -> Tensor:
        return final_layer(linear, img, vec)

    return forward


# --- a step ---


def _hear(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Run the model, and keep what it predicts for `_euler`.

    ComfyUI hands on the picture that follows from it, from which the small numbers of the
    prediction cannot be had back.
    """
    made: Tensor = executor(x, timestep, *args, **kwargs)
    heard = _options_among(args, kwargs).get(HEARD)
    if heard is not None:
        heard.made.append(made)
    return made


class Heard:
    """What the model predicted in one step; no list itself, which ComfyUI would copy."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []


def _options_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the options among the arguments of ComfyUI's FLUX model behind x and timestep."""
    if "transformer_options" in kwargs:
        return kwargs["transformer_options"]
    return next((value for value in reversed(args) if isinstance(value, dict)), {})


def _sample(
    executor: Any, model: Any, sigmas: Tensor, extra_args: Any, *rest: Any, **kw: Any
) -> Any:
    """Make the steps of a plain Euler sampler in bf16; leave any other sampler alone."""
    sampler = executor.class_obj
    function = getattr(sampler, "sampler_function", None)
    masked = kw.get("denoise_mask", rest[3] if len(rest) > 3 else None) is not None
    if getattr(function, "__name__", "") != "sample_euler" or sampler.extra_options or masked:
        return executor(model, sigmas, extra_args, *rest, **kw)
    made = comfy.samplers.KSAMPLER(_euler, {}, sampler.inpaint_options)
    return made.sample(model, sigmas, extra_args, *rest, **kw)


def _euler(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: Any = None,  # noqa: ARG001 - ComfyUI's signature; its callback shows the progress
) -> Tensor:
    """Walk down the noise levels as the hosted fast engine does, its latent in bf16 all along."""
    arguments = dict(extra_args or {})
    heard = Heard()
    options = dict(arguments.get("model_options") or {})
    options["transformer_options"] = {**options.get("transformer_options", {}), HEARD: heard}
    arguments["model_options"] = options
    levels: list[float] = sigmas.tolist()
    latent = x.to(torch.bfloat16)
    for step, (sigma, following) in enumerate(itertools.pairwise(levels)):
        heard.made.clear()
        shown = latent.to(x.dtype)
        denoised: Tensor = model(shown, sigmas[step].expand(len(x)), **arguments)
        if callback is not None:
            level = sigmas[step]
            callback(
                {"x": shown, "i": step, "sigma": level, "sigma_hat": level, "denoised": denoised}
            )
        latent = euler(latent, _prediction(heard.made, shown, denoised, sigma), sigma, following)
    return latent.to(x.dtype)


def _prediction(made: list[Tensor], x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """Return what the model predicted, in bf16.

    Where ComfyUI put several answers together (areas, guidance, hooks), from their sum.
    """
    if len(made) == 1 and made[0].shape == x.shape:
        return made[0].to(x.device, torch.bfloat16)
    return ((x - denoised) / sigma).to(torch.bfloat16)


# --- the layers ---


def hosted_layers(network: Any) -> dict[str, HostedLinear]:
    """Return the layers of a model that are in fp8 as hosted, by their names."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, HostedLinear) and layer.scale is not None
    }
