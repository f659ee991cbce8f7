"""Small seeded LoRAs for the small FLUX, the same delta in every spelling that trainers use.

    delta = attention(seed=1)              # what XLabs' format can say too
    save(FAMILIES["kohya"](delta), path)

Every number is a small multiple of a power of two, and alphas are powers of two: B @ A is exact
in fp32 whatever the order of the sums, so two spellings of a delta can be compared bit by bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from . import shapes

State = dict[str, Tensor]

RANK = 4


@dataclass(frozen=True)
class Part:
    """The two factors of one module's delta.

    Attributes:
        down: [rank,in]
        up: [out,rank]
    """

    down: Tensor
    up: Tensor


Delta = dict[str, Part]
"""By the published names of the modules; `linear1_qkv` is the attention's share of `linear1`."""

H = shapes.HIDDEN


def attention(seed: int = 1) -> Delta:
    """A delta of the layers around the attention: what XLabs' format can say."""
    wanted: dict[str, tuple[int, int]] = {}
    for index in range(shapes.DOUBLE_BLOCKS):
        for stream in ("img", "txt"):
            wanted[f"double_blocks.{index}.{stream}_attn.qkv"] = (3 * H, H)
            wanted[f"double_blocks.{index}.{stream}_attn.proj"] = (H, H)
    for index in range(shapes.SINGLE_BLOCKS):
        wanted[f"single_blocks.{index}.linear1_qkv"] = (3 * H, H)
        wanted[f"single_blocks.{index}.linear2"] = (H, 5 * H)
    return _random(wanted, seed)


def blocks(seed: int = 1) -> Delta:
    """A delta of every linear layer in the blocks, as Replicate's trainer makes it."""
    every = {name: shape for name, shape in _linears().items() if "blocks." in name}
    return _random(every, seed)


def attention_of(delta: Delta) -> Delta:
    """Of a delta of the blocks, what XLabs' format can say."""
    made: Delta = {}
    for name, part in delta.items():
        if name.endswith(("_attn.qkv", "_attn.proj", "linear2")):
            made[name] = part
        elif name.endswith("linear1"):
            rows = len(part.up) // 7 * 3
            made[f"{name}_qkv"] = Part(part.down, part.up[:rows].contiguous())
    return made


def everything(seed: int = 1) -> Delta:
    """A delta of every linear layer of dev, the embedders and the last layer too."""
    return _random(_linears(), seed)


def _linears() -> dict[str, tuple[int, int]]:
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.flux(guidance=True).items()
        if len(shape) == 2
    }


def _random(wanted: Mapping[str, tuple[int, int]], seed: int) -> Delta:
    generator = torch.Generator().manual_seed(seed)

    def grid(shape: tuple[int, int], step: float) -> Tensor:
        return torch.randint(-4, 5, shape, generator=generator).float() * step

    return {
        name: Part(down=grid((RANK, into), 2**-6), up=grid((out, RANK), 2**-5))
        for name, (out, into) in wanted.items()
    }


# --- in the spellings of the trainers ---


def native(
    delta: Delta,
    *,
    prefix: str = "diffusion_model.",
    sides: tuple[str, str] = ("lora_A", "lora_B"),
    alpha: float | None = None,
) -> State:
    """The published names: BFL's and ComfyUI's own."""
    return _spelled(whole(delta), lambda name: prefix + name, sides, alpha)


def kohya(delta: Delta, *, alpha: float | None = 2.0) -> State:
    """`lora_unet_...`, with alpha."""

    def named(name: str) -> str:
        return "lora_unet_" + name.replace(".", "_")

    return _spelled(whole(delta), named, ("lora_down", "lora_up"), alpha)


def diffusers(
    delta: Delta,
    *,
    prefix: str = "transformer.",
    sides: tuple[str, str] = ("lora_A", "lora_B"),
    alpha: float | None = None,
) -> State:
    """The names of diffusers, where query, key and value are modules of their own."""
    return _spelled(split(delta), lambda name: prefix + name, sides, alpha)


def xlabs(delta: Delta) -> State:
    """`double_blocks.N.processor...` and `single_blocks.N.processor...`."""
    made: State = {}
    for name, part in delta.items():
        block, _, module = name.partition("_blocks.")
        number, _, module = module.partition(".")
        target = f"{block}_blocks.{number}.processor.{_XLABS[module]}"
        made[f"{target}.down.weight"] = part.down
        made[f"{target}.up.weight"] = part.up
    return made


_XLABS = {
    "img_attn.qkv": "qkv_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "img_attn.proj": "proj_lora1",
    "txt_attn.proj": "proj_lora2",
    "linear1_qkv": "qkv_lora",
    "linear2": "proj_lora",
}


def _spelled(
    delta: Delta, named: Callable[[str], str], sides: tuple[str, str], alpha: float | None
) -> State:
    down, up = sides
    made: State = {}
    for name, part in delta.items():
        made[f"{named(name)}.{down}.weight"] = part.down
        # The delta is alpha / rank * up @ down.
        made[f"{named(name)}.{up}.weight"] = part.up * (len(part.down) / alpha if alpha else 1)
        if alpha:
            made[f"{named(name)}.alpha"] = torch.tensor(alpha)
    return made


def whole(delta: Delta) -> Delta:
    """The same delta without `linear1_qkv`: that of `linear1`, which is nothing for the MLP."""
    made: Delta = {}
    for name, part in delta.items():
        if name.endswith("linear1_qkv"):
            rows, rank = part.up.shape
            up = torch.cat([part.up, part.up.new_zeros(rows // 3 * 4, rank)])
            made[name.removesuffix("_qkv")] = Part(part.down, up)
        else:
            made[name] = part
    return made


def split(delta: Delta) -> Delta:
    """The same delta by the names of diffusers."""
    made: Delta = {}
    for name, part in delta.items():
        targets = diffusers_names(name)
        rows = len(part.up) // {4: 7, 3: 3}.get(len(targets), 1)
        ups = part.up.split([rows] * 3 + [4 * rows] if len(targets) == 4 else rows)
        if name == "final_layer.adaLN_modulation.1":
            ups = [torch.cat(part.up.chunk(2)[::-1])]  # diffusers wants scale before shift
        elif len(targets) == 1:
            ups = [part.up]
        for target, up in zip(targets, ups, strict=True):
            made[target] = Part(part.down, up.contiguous())
    return made


def joined(state: Mapping[str, Tensor], names: Iterable[str]) -> Delta:
    """Of what `diffusers` made, the modules of these published names."""
    made: Delta = {}
    for name in names:
        targets = [f"transformer.{target}" for target in diffusers_names(name)]
        ups = [state[f"{target}.lora_B.weight"] for target in targets]
        made[name] = Part(state[f"{targets[0]}.lora_A.weight"], torch.cat(ups))
    return made


def diffusers_names(name: str) -> list[str]:
    """What diffusers calls a module, or the parts it makes of it."""
    kind, found, rest = name.partition("_blocks.")
    if not found:
        return [_OUTSIDE[name]]
    index, _, module = rest.partition(".")
    block = f"{'single_' if kind == 'single' else ''}transformer_blocks.{index}"
    return [f"{block}.{part}" for part in _INSIDE[module].split()]


_INSIDE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.qkv": "attn.to_q attn.to_k attn.to_v",
    "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
    "linear1_qkv": "attn.to_q attn.to_k attn.to_v",
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
}
_OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}

FAMILIES: dict[str, Callable[[Delta], State]] = {
    "diffusers": diffusers,
    "diffusers with alpha": lambda delta: diffusers(delta, alpha=2.0),
    "diffusers, lora_down and lora_up": lambda d: diffusers(d, sides=("lora_down", "lora_up")),
    "diffusers without prefix": lambda delta: diffusers(delta, prefix=""),
    "PEFT of diffusers": lambda delta: diffusers(delta, prefix="base_model.model."),
    "PEFT with the adapter's name": lambda delta: diffusers(
        delta, prefix="base_model.model.", sides=("lora_A.default", "lora_B.default")
    ),
    "PEFT of BFL": lambda delta: native(delta, prefix="base_model.model."),
    "kohya with alpha": kohya,
    "kohya without alpha": lambda delta: kohya(delta, alpha=None),
    "ComfyUI": native,
    "ComfyUI, lora_down and lora_up": lambda d: native(
        d, sides=("lora_down", "lora_up"), alpha=8.0
    ),
    "BFL": lambda delta: native(delta, prefix=""),
    "OneTrainer": lambda delta: {
        "lora_transformer_" + _underscored(name): tensor
        for name, tensor in diffusers(
            delta, prefix="", sides=("lora_down", "lora_up"), alpha=4.0
        ).items()
    },
}
"""Every spelling of any delta; XLabs has one of `attention` only."""


def _underscored(name: str) -> str:
    module, dot, rest = name.partition(".lora_")
    if not dot:
        module, dot, rest = name.rpartition(".")
    return module.replace(".", "_") + dot + rest


def write(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Save a LoRA file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path, metadata)


def as_bytes(state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A LoRA file's bytes."""
    return save({name: value.contiguous().clone() for name, value in state.items()}, metadata)


# --- in diffusers ---


@contextmanager
def adapted(pipe: Any, loras: Iterable[tuple[Mapping[str, Tensor], float]]) -> Any:
    """Let a FluxPipeline have LoRAs, each with its scale, while the block runs.

    With `load_lora_weights` and `set_adapters`, as its users do.
    """
    names: list[str] = []
    scales: list[float] = []
    try:
        for state, scale in loras:
            names.append(f"lora{len(names)}")
            scales.append(scale)
            with warnings.catch_warnings():
                # A second adapter is what the caller wants.
                warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
                pipe.load_lora_weights(dict(state), adapter_name=names[-1])
        pipe.set_adapters(names, scales)
        yield
    finally:
        pipe.unload_lora_weights()
