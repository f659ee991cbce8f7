"""LoRA files that LyCORIS itself writes, and what its own layers make of the small FLUX.

    written = write(RECIPES["LoKr"], transformer, path, "lycoris", 1.0)
    written.changes["transformer_blocks.0.attn.to_q.weight"]

The reference is what a layer answers with LyCORIS in it and without, which is what was trained:
its `merge_to` multiplies LoHa and LoKr by alpha / rank twice.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from .references import State, Written, answers, seeded

RANK = 4
ALPHA = 3.0


@dataclass(frozen=True)
class Recipe:
    """How LyCORIS makes a file.

    Attributes:
        algo: as `create_lycoris` has it.
        size: how far numbers are moved from where a training begins.
        options: more of `create_lycoris`.
        inner: options that a preset alone can give to the layers.
        head: what kohya's scripts write into the head.
        around: whether a strength multiplies the whole change, as in ComfyUI; LyCORIS' own
            multiplier leaves a part of it at any strength.
    """

    algo: str
    size: float = 0.05
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inner: Mapping[str, Any] = field(default_factory=dict[str, Any])
    head: Mapping[str, str] | None = None
    around: bool = False


def _dora(algo: str, *, rows: bool) -> Recipe:
    return Recipe(algo, options={"dora_wd": True, "wd_on_output": rows}, around=True)


_FOUR_STAGES = {"linear_dim": 14}
"""Blocks of 8, 12 or 14 rows, of which there have to be a power of two."""

RECIPES: dict[str, Recipe] = {
    "LoCon": Recipe("locon"),
    "LoCon, rs-LoRA": Recipe("locon", inner={"rs_lora": True}),
    "LoCon with a scalar": Recipe("locon", options={"use_scalar": True}),
    "LoHa": Recipe("loha"),
    "LoHa, rs-LoRA": Recipe("loha", inner={"rs_lora": True}),
    "LoKr": Recipe("lokr", options={"linear_dim": 10000}),
    "LoKr, the second in factors": Recipe("lokr", options={"linear_dim": 2, "factor": 8}),
    "LoKr in factors": Recipe("lokr", 0.1, options={"linear_dim": 2, "decompose_both": True}),
    "LoKr, rs-LoRA": Recipe("lokr", options={"factor": 4}, inner={"rs_lora": True}),
    "LoKr, unbalanced": Recipe(
        "lokr", options={"linear_dim": 2, "unbalanced_factorization": True, "factor": 4}
    ),
    "full": Recipe("full", 0.005),
    "DyLoRA": Recipe(
        "dylora",
        options={"block_size": 2},
        head={"ss_network_args": json.dumps({"algo": "dylora", "block_size": "2"})},
    ),
    "DoRA of rows": _dora("locon", rows=True),
    "DoRA of columns": _dora("locon", rows=False),
    "DoRA of rows, LoHa": _dora("loha", rows=True),
    "DoRA of columns, LoKr": _dora("lokr", rows=False),
    "GLoRA": Recipe("glora", 0.01),
    "OFT": Recipe("diag-oft", 0.02),
    "OFT with rescale": Recipe("diag-oft", 0.02, {"rescaled": True}, around=True),
    "OFT, constrained": Recipe("diag-oft", 0.02, {"constraint": 1e-3}),
    "BOFT": Recipe("boft", 0.01, _FOUR_STAGES, around=True),
    "BOFT with rescale": Recipe("boft", 0.01, _FOUR_STAGES | {"rescaled": True}, around=True),
    "BOFT, constrained": Recipe("boft", 0.01, _FOUR_STAGES | {"constraint": 1e-3}, around=True),
}


def write(recipe: Recipe, network: nn.Module, path: Path, prefix: str, strength: float) -> Written:
    """Wrap a network's linear layers, move all numbers, save; the network is spoilt.

    Args:
        recipe: how.
        network: that LyCORIS wraps.
        path: of the file to be.
        prefix: of the names in it.
        strength: at which the changes are told.
    """
    layers = {name: one for name, one in network.named_modules() if isinstance(one, nn.Linear)}
    before = _values(layers)
    wrapped = _wrapped(recipe, network, prefix)
    _move(wrapped, recipe.size)
    wrapped.save_weights(str(path), torch.float32, dict(recipe.head or {}))
    if not recipe.around:
        wrapped.set_multiplier(strength)
    with _all_ranks():
        after = answers(layers)
    factor = strength if recipe.around else 1.0
    return Written(path, {name: factor * (after[name] - before[name]) for name in before})


def _values(layers: Mapping[str, nn.Linear]) -> State:
    return {
        f"{name}.{kind}": value.clone()
        for name, layer in layers.items()
        for kind, value in layer.state_dict().items()
    }


def _wrapped(recipe: Recipe, network: nn.Module, prefix: str) -> Any:
    import lycoris

    lycoris.logger.setLevel(logging.ERROR)
    maps = {"Linear": {"algo": recipe.algo, **recipe.inner}} if recipe.inner else {}
    lycoris.LycorisNetwork.apply_preset(
        {"lora_prefix": prefix, "target_module": ["Linear"], "module_algo_map": maps}
    )
    options = {"linear_dim": RANK, "linear_alpha": ALPHA, **recipe.options}
    with seeded():
        made = lycoris.create_lycoris(network, 1.0, algo=recipe.algo, **options)
    made.apply_to()
    return made.eval()


def _move(wrapped: nn.Module, size: float) -> None:
    """Leave nothing at the zeros and ones that a training begins with."""
    generator = torch.Generator().manual_seed(5)
    for name, value in wrapped.named_parameters():
        step = torch.randn(value.shape, generator=generator)
        if name.endswith(("dora_scale", "rescale")):
            value.data.mul_(1 + 0.1 * step)
        elif name.endswith("scalar"):
            value.data.fill_(0.5)
        else:
            value.data.add_(size * step)


@contextmanager
def _all_ranks() -> Any:
    """DyLoRA draws in each pass how many of its ranks take part."""
    with patch.object(random, "randint", lambda _first, last: last):
        yield


def published(weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the linear layers of a FLUX under their published names."""
    made = nn.Module()
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight":
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": weights[f"{module}.bias"]})
            _place(made, module.split("."), layer)
    return made


def _place(root: nn.Module, path: list[str], layer: nn.Module) -> None:
    for part in path[:-1]:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(path[-1], layer)
