"""LoRA files that PEFT and diffusers themselves write, and what they make of the small FLUX.

written = WRITERS["PEFT"](SETTINGS["DoRA"], transformer, folder, 1.0)
written.changes["transformer_blocks.0.attn.to_q.weight"]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .references import State, Written, seeded

Settings = Mapping[str, Any]

RANK = 4

SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_alpha": 16},
    "biases": {"lora_alpha": 6, "lora_bias": True},
    "rs-LoRA": {"lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "lora_alpha": 16,
        "rank_pattern": {"to_q": 8, r"ff\.net\.\d+.*": 2},
        "alpha_pattern": {r"^single_transformer_blocks\.\d+\.proj_out": 2, "to_k": 5},
    },
    "patterns, rs-LoRA": {"lora_alpha": 6, "rank_pattern": {"to_q": 8}, "use_rslora": True},
    "DoRA": {"lora_alpha": 16, "use_dora": True},
    "DoRA, rs-LoRA": {"lora_alpha": 3, "use_dora": True, "use_rslora": True},
}
"""Of PEFT's `LoraConfig`, beside the rank."""


def with_peft(
    settings: Settings,
    network: nn.Module,
    folder: Path,
    strength: float,
    config: str = "LoraConfig",
) -> Written:
    """Write with `save_pretrained`, settings beside the file; the reference is what is merged."""
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    before = _values(network)
    with seeded():
        wrapped = peft.get_peft_model(network, getattr(peft, config)(**_filled(settings, network)))
    _move(wrapped)
    with _without_words():
        wrapped.save_pretrained(str(folder))
    layers: list[Any] = [one for one in wrapped.modules() if isinstance(one, BaseTunerLayer)]
    for layer in layers:
        layer.set_scale("default", strength)
    after = _values(wrapped.merge_and_unload())
    path = folder / "adapter_model.safetensors"
    return Written(path, {name: after[name] - before[name] for name in before})


def save_other(config: str, settings: Settings, network: nn.Module, folder: Path) -> Path:
    """Write another adapter of PEFT's as it is when its training begins; return the file."""
    import peft

    kasa = {"kasa_config": peft.KasaConfig()} if "kasa_config" in settings else {}
    settings = {**settings, **kasa, "target_modules": ["to_q", "to_k"]}
    made = getattr(peft, config)(**settings)
    with seeded():
        peft.get_peft_model(network, made).save_pretrained(str(folder))
    return folder / "adapter_model.safetensors"


with_loha = partial(with_peft, config="LoHaConfig")
with_lokr = partial(with_peft, config="LoKrConfig")


def with_diffusers(settings: Settings, network: Any, folder: Path, strength: float) -> Written:
    """Write as the trainers of diffusers do, settings in the head; what is fused counts."""
    from diffusers.training_utils import _collate_lora_metadata

    def save() -> None:
        _save_layers(network, folder, **_collate_lora_metadata({"transformer": network}))

    return _with_diffusers(settings, network, folder, strength, save)


def with_older_diffusers(
    settings: Settings, network: Any, folder: Path, strength: float
) -> Written:
    """Write as those did before there were settings in the head; alpha has to be the rank."""

    def save() -> None:
        _save_layers(network, folder)

    return _with_diffusers(settings, network, folder, strength, save)


def without_pipeline(settings: Settings, network: Any, folder: Path, strength: float) -> Written:
    """Write with the transformer's own `save_lora_adapter`."""

    def save() -> None:
        network.save_lora_adapter(str(folder))

    return _with_diffusers(settings, network, folder, strength, save)


def _with_diffusers(
    settings: Settings, network: Any, folder: Path, strength: float, save: Callable[[], None]
) -> Written:
    import peft

    before = _values(network)
    with seeded():
        network.add_adapter(peft.LoraConfig(**_filled(settings, network)))
    _move(network)
    with _without_words():
        save()
    network.fuse_lora(strength)
    after = {name.replace(".base_layer.", "."): value for name, value in _values(network).items()}
    path = folder / "pytorch_lora_weights.safetensors"
    return Written(path, {name: after[name] - before[name] for name in before})


def _save_layers(network: nn.Module, folder: Path, **metadata: Any) -> None:
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from peft.utils import get_peft_model_state_dict

    layers: Any = get_peft_model_state_dict(network)
    FluxPipeline.save_lora_weights(folder, transformer_lora_layers=layers, **metadata)


def _filled(settings: Settings, network: nn.Module) -> dict[str, Any]:
    layers = [name for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    return {"r": RANK, "target_modules": layers, **settings}


def _values(network: nn.Module) -> State:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _move(network: nn.Module) -> None:
    """Leave nothing at the zeros that a training begins with."""
    generator = torch.Generator().manual_seed(6)
    for name, value in network.named_parameters():
        step = torch.randn(value.shape, generator=generator)
        if "lora_magnitude_vector" in name:
            value.data.mul_(1 + 0.1 * step)
        elif any(part in name for part in ("lora_", "hada_", "lokr_")):
            value.data.add_(0.05 * step)


@contextmanager
def _without_words() -> Iterator[None]:
    """Let PEFT save a bias, which it takes for a shard of a matrix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*lora_B\.bias", UserWarning)
        yield
