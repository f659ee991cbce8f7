"""What one step of FLUX.1 dev moves and launches with a LoRA beside its int8 weights; no GPU.

    python bench/traffic.py      # less than a minute; 1 GB of memory

ComfyUI's own FLUX runs once at its full size on tensors without data, and every operation is
counted: the bytes that it reads and writes, each tensor once, and the kernels that it launches.
The blocks' layers are one `int8_linear` of comfy-kitchen, as those of a ComfyUI that runs int8
itself are; it counts as the two kernels that it is on CUDA, and an `addmm` that is not in place as
the two that torch makes of it there: it copies the sum's first part before it adds. Attention
counts as one kernel. What stays in a card's cache between two operations is counted as moved, so
these are upper bounds. Beside them stands the least that a LoRA can move behind its layers, which
is to read what they were given once, and to read and write what they made. Writes
bench/results/traffic.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints  # noqa: E402 - after the path
import torch  # noqa: E402
from runtime import inside  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

DOUBLE, SINGLE = 19, 38
RANK = 16
TEXT = 512
MOST = 1.05
"""With a LoRA, of the bytes without: the goal."""

FREE = frozenset(("empty", "new_empty", "empty_strided", "empty_like"))
"""Operations that make a tensor and write nothing into it."""


class Attention(TorchFunctionMode):
    """Counts attention as the one kernel that it is on a card."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self._count = count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Take the place of `scaled_dot_product_attention` alone."""
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        queries = args[0]
        made = queries.new_empty(queries.shape)
        self._count.add(1, [*args[:3], made])
        return made


class Count(TorchDispatchMode):
    """Counts what runs within it.

    Attributes:
        moved: bytes read and written.
        launches: kernels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0
        self.launches = 0

    def add(self, launches: int, tensors: list[Any], more: int = 0) -> None:
        """Count kernels that read or write tensors, and bytes more."""
        self.launches += launches
        self.moved += more + sum(size(t) for t in tensors if isinstance(t, Tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        given = tree_leaves((args, kwargs or {}))
        if name in FREE or (not name.endswith("_") and is_view(made, given)):
            return made
        tensors = [*given, *tree_leaves(made)]
        if name == "int8_linear":
            tokens = args[0]
            self.add(2, tensors, more=2 * tokens.numel())  # tokens in int8, written and read
        elif name == "addmm" and args[0].dim() == 2:
            self.add(2, tensors, more=2 * size(made))  # the copy, written and read
        else:
            self.add(1, tensors)
        return made


def is_view(made: Any, given: list[Any]) -> bool:
    """Whether what an operation made lies where what it was given lies."""
    places = {t.untyped_storage()._cdata for t in given if isinstance(t, Tensor)}
    tensors = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
    return all(tensor.untyped_storage()._cdata in places for tensor in tensors)


def size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; what is expanded is read once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(side for side, step in sides if step or side == 1)


def network(*, int8: bool) -> Any:
    """Return ComfyUI's FLUX.1 dev without data: in int8 as we lay it out, or in bf16."""
    import comfy.ldm.flux.model
    import comfy.ops

    layout = inside.pack("ops.checkpoint.layout")
    newer: Any = {"txt_ids_dims": []} if has_text_axes() else {}
    operations: Any = comfy.ops.disable_weight_init
    if int8:
        matmul = inside.pack("engine.trial").any_matmul()
        operations = inside.pack("engine.int8_linear").int8_operations(matmul)
    made: Any = comfy.ldm.flux.model.Flux(
        image_model="flux", in_channels=16, out_channels=16, vec_in_dim=checkpoints.POOLED,
        context_in_dim=checkpoints.CONTEXT, hidden_size=checkpoints.WIDTH, mlp_ratio=4.0,
        num_heads=checkpoints.WIDTH // checkpoints.HEAD, depth=DOUBLE,
        depth_single_blocks=SINGLE, axes_dim=[16, 56, 56], theta=10000, patch_size=2,
        qkv_bias=True, guidance_embed=True, dtype=torch.bfloat16, device="meta",
        operations=operations, **newer,
    )  # fmt: skip
    state: dict[str, Tensor] = {}
    known = {name for name, _ in made.named_parameters()}
    for told, shape in checkpoints.shapes(DOUBLE, SINGLE):
        renamed = told.removesuffix("scale") + "weight"  # a norm's, by ComfyUI's version
        name = renamed if renamed in known else told
        quantised = int8 and layout.is_block_linear(name) and not layout.is_modulation(name)
        dtype = torch.int8 if quantised else torch.bfloat16
        state[name] = torch.empty(shape, dtype=dtype, device="meta")
        if quantised:
            state[f"{name}_scale"] = torch.empty(shape[0], 1, device="meta")
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)


def has_text_axes() -> bool:
    """Whether this ComfyUI's FLUX wants to be told which axes count the prompt's tokens."""
    import comfy.ldm.flux.model as flux

    return "txt_ids_dims" in {field.name for field in dataclasses.fields(flux.FluxParams)}


def least(net: Any, side: int) -> float:
    """Return the bytes in bf16 that any LoRA moves which runs behind all its layers."""
    layers = quantised(net)
    image = (side // 16) ** 2
    moved = 0
    for name, layer in layers.items():
        tokens = image if "img" in name else TEXT if "txt" in name else image + TEXT
        moved += 2 * tokens * (layer.in_features + 2 * layer.out_features)
    return moved


def quantised(net: Any) -> dict[str, Any]:
    """Return the layers in int8, by their names."""
    layers = inside.pack("engine.beside").linear_layers(net)
    return {name: layer for name, layer in layers.items() if layer.weight.dtype == torch.int8}


def attach(net: Any) -> None:
    """Put a LoRA beside every int8 layer, as the engine does."""
    beside = inside.pack("engine.beside")
    hooks = beside.attached(net)
    sides = {}
    for name, layer in quantised(net).items():
        up = torch.empty(layer.out_features, RANK, dtype=torch.bfloat16, device="meta")
        down = torch.empty(RANK, layer.in_features, dtype=torch.bfloat16, device="meta")
        sides[name] = [beside.Factors(up, down)]
    hooks.attach(0, sides)


def step(net: Any, side: int) -> dict[str, float]:
    """Run one step and return what it moved and launched."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    latent = empty(1, 16, side // 8, side // 8)
    given = (empty(1), empty(1, TEXT, checkpoints.CONTEXT), empty(1, checkpoints.POOLED), empty(1))
    with torch.inference_mode(), Count() as count, Attention(count):
        net(latent, *given)
    return {"gigabytes": round(count.moved / 1e9, 2), "launches": count.launches}


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=1024, help="of the picture, in pixels")
    parser.add_argument("--output", type=Path, default=common.RESULTS / "traffic.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-traffic-") as scratch:
        folder = Path(scratch)
        inside.start("--cpu", "--use-pytorch-cross-attention", models=folder)
        ways = {"bf16": step(network(int8=False), options.side)}
        net = network(int8=True)
        ways["int8"] = step(net, options.side)
        floor = least(net, options.side)
        attach(net)
        ways["int8, a LoRA beside"] = step(net, options.side)
    before, after = ways["int8"], ways["int8, a LoRA beside"]
    shares = {key: round(after[key] / before[key], 4) for key in before}
    reached = round(1 + floor / 1e9 / before["gigabytes"], 4)
    for name, found in ways.items():
        print(f"{name:24}{found['gigabytes']:9.2f} GB{found['launches']:8} launches")
    print(
        f"with a LoRA: {shares['gigabytes']:.3f} of the bytes, goal {MOST}, least possible behind "
        f"a layer {reached:.3f}; {shares['launches']:.3f} of the launches"
    )
    setup = {"side": options.side, "rank": RANK, "text_tokens": TEXT, "most": MOST}
    machine = common.machine("torch", "comfy-kitchen")
    common.write(
        options.output,
        {"machine": machine, "setup": setup, "ways": ways, "with_lora": shares, "least": reached},
    )


if __name__ == "__main__":
    main()
