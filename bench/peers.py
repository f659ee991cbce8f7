"""The ways to run FLUX that the benchmarks compare: ComfyUI's own and ours, from tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from runtime import inside
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0

State = dict[str, Tensor]
Loader = Callable[[State], Any]
"""Takes the tensors of a model in bf16, which it may change, and returns a model patcher."""


def core(**options: Any) -> Loader:
    """Return ComfyUI's own loader, with the options of one of its ways."""

    def load(state: State) -> Any:
        import comfy.sd

        return comfy.sd.load_diffusion_model_state_dict(state, model_options=options)

    return load


def scaled_fp8(state: State) -> Any:
    """Load as a file of `scaled_fp8` does: every linear layer in e4m3, with a scale a tensor."""
    for name in [name for name, tensor in state.items() if tensor.ndim == 2]:
        values, scale = by_tensor(state[name])
        state[name], state[name.replace(".weight", ".scale_weight")] = values, scale
    state["scaled_fp8"] = torch.empty(2, dtype=FP8)
    return core()(state)


def by_tensor(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight in e4m3 and the one scale [] float32 that makes its largest value 448."""
    weight = weight.float()
    scale = weight.abs().amax() / FP8_MAX
    return (weight / scale).to(FP8), scale


def core_int8(state: State) -> Any:
    """Load in ComfyUI's `int8_tensorwise`, quantised by its own library in bf16."""
    chosen = quantised(state)
    convert = inside.pack("ops.checkpoint.convert")
    for target in chosen:
        made = by_kitchen(state[target.name].to(torch.bfloat16))
        state[target.name], state[convert.scale_name(target.name)] = made
    return core()(convert.described(state, chosen))


def by_kitchen(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return [N,K] int8 and its scales [N,1], quantised by comfy-kitchen in the weight's dtype."""
    from comfy_kitchen.tensor.int8 import TensorWiseINT8Layout

    group = inside.pack("ops.int8").group_of(weight.shape[1])
    values, about = TensorWiseINT8Layout.quantize(
        weight, per_channel=True, convrot=group > 1, convrot_groupsize=group
    )
    return values, about.scale.reshape(-1, 1)


def ours(*, matmul: bool) -> Loader:
    """Return our way from tensors in memory: multiplied in int8, or only stored in it."""

    def load(state: State) -> Any:
        convert, int8 = inside.pack("ops.checkpoint.convert"), inside.pack("ops.int8")
        chosen = quantised(state)
        for target in chosen:
            weight = state[target.name].float()
            made = int8.quantise(weight, int8.group_of(weight.shape[1]))
            state[target.name], state[convert.scale_name(target.name)] = made
        if matmul and inside.pack("engine.models").core_knows_int8():
            made = core()(convert.described(state, chosen))
        else:
            way = inside.pack("engine.trial").any_matmul() if matmul else None
            made = inside.pack("engine.checkpoint").build(state, way, "random")
        inside.pack("engine.beside").attached(made.model)  # before anything is compiled
        return made

    return load


def hosted(state: State) -> Any:
    """Return engine fp8 from tensors in memory; it measures the inputs of each call."""
    fp8, layout = inside.pack("ops.hosted.quantise"), inside.pack("ops.checkpoint.layout")
    for name in [name for name in state if layout.is_block_linear(name)]:
        made = fp8.quantise_weight(state[name].to(torch.bfloat16))
        layer = name.removesuffix(".weight")
        state[name], state[f"{layer}.scale"] = made.data, made.scale
        state[f"{layer}.scale_reciprocal"] = made.reciprocal
    return inside.pack("engine.hosted").build(state, "random")


def quantised(state: State) -> list[Any]:
    """Return the tensors of a model that go to int8, as `ops.checkpoint.layout` describes them."""
    layout = inside.pack("ops.checkpoint.layout")
    targets = layout.targets({name: tuple(tensor.shape) for name, tensor in state.items()})
    return inside.pack("ops.checkpoint.convert").quantised(targets, modulation=False)


def has_matmul() -> bool:
    """Whether comfy-kitchen is here, which multiplies in int8."""
    return inside.pack("engine.trial").any_matmul() is not None


def core_has_int8() -> bool:
    """Whether this ComfyUI runs int8 itself."""
    return has_matmul() and inside.pack("engine.models").core_knows_int8()
