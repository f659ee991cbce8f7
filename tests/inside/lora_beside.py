"""All that is no plain LoRA, with go_fast: beside the weight, which stays as it is bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import DEV, QKV, RANDOM, H, State, all_of, changes, drawn

TO_Q = "lycoris_transformer_blocks_0_attn_to_q"
TO_K = "lycoris_transformer_blocks_0_attn_to_k"
NATIVE = f"diffusion_model.{QKV}"
TOKENS = drawn(256, H, size=1.0)

FORMS: dict[str, State] = {
    "LoKr": {f"{NATIVE}.lokr_w1": drawn(16, 8), f"{NATIVE}.lokr_w2": drawn(3 * H // 16, H // 8)},
    "LoKr in factors": {
        f"{NATIVE}.lokr_w1_a": drawn(16, 4),
        f"{NATIVE}.lokr_w1_b": drawn(4, 8),
        f"{NATIVE}.lokr_w2_a": drawn(3 * H // 16, 2),
        f"{NATIVE}.lokr_w2_b": drawn(2, H // 8),
        f"{NATIVE}.alpha": torch.tensor(3.0),
    },
    "LoKr, the first in factors": {
        f"{NATIVE}.lokr_w1_a": drawn(16, 4),
        f"{NATIVE}.lokr_w1_b": drawn(4, 8),
        f"{NATIVE}.lokr_w2": drawn(3 * H // 16, H // 8),
        f"{NATIVE}.alpha": torch.tensor(3.0),
    },
    "LoKr of some rows": {f"{TO_Q}.lokr_w1": drawn(8, 8), f"{TO_Q}.lokr_w2": drawn(H // 8, H // 8)},
    "LoHa": {
        f"{NATIVE}.hada_w1_a": drawn(3 * H, 4),
        f"{NATIVE}.hada_w1_b": drawn(4, H),
        f"{NATIVE}.hada_w2_a": drawn(3 * H, 2),
        f"{NATIVE}.hada_w2_b": drawn(2, H),
        f"{NATIVE}.alpha": torch.tensor(2.0),
    },
    "LoHa of a high rank": {
        f"{NATIVE}.hada_w1_a": drawn(3 * H, 32),
        f"{NATIVE}.hada_w1_b": drawn(32, H),
        f"{NATIVE}.hada_w2_a": drawn(3 * H, 32),
        f"{NATIVE}.hada_w2_b": drawn(32, H),
    },
    "difference": {f"{NATIVE}.diff": drawn(3 * H, H)},
    "difference of some rows": {f"{TO_K}.diff": drawn(H, H)},
    "GLoRA": {
        f"{NATIVE}.a1.weight": drawn(H, 2),
        f"{NATIVE}.a2.weight": drawn(2, H),
        f"{NATIVE}.b1.weight": drawn(3 * H, 2),
        f"{NATIVE}.b2.weight": drawn(2, H),
    },
    "OFT of some rows": {f"{TO_K}.oft_blocks": drawn(8, H // 8, H // 8)},
    "BOFT": {f"{TO_K}.oft_blocks": drawn(2, H // 8, 8, 8)},
}

SIZED = ("diff", "a1.weight", "b1.weight", "oft_blocks", "hada_w2_a", "lokr_w2", "lokr_w2_a")
"""Slots by which a change grows."""

PAIR = {"lora_up.weight": drawn(3 * H, 4), "lora_down.weight": drawn(4, H)}
LOKR = {"lokr_w1": drawn(16, 8), "lokr_w2": drawn(3 * H // 16, H // 8)}
DORA: dict[str, tuple[str, int, State]] = {  # the name, 0 for rows or 1 for columns, the change
    "PEFT's": ("lora_magnitude_vector", 0, PAIR),
    "LyCORIS' of rows": ("dora_scale", 0, PAIR),
    "LyCORIS' of columns": ("dora_scale", 1, PAIR),
    "LoKr's": ("dora_scale", 0, LOKR),
}


@pytest.fixture(params=["int8", "storage"])
def fast(request: pytest.FixtureRequest, comfy: Any, models: Path, monkeypatch: Any) -> Any:
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
    path = models / "diffusion_models" / DEV
    return inside.pack("engine.models").load_fast(path, modulation=False)[0]


def sized(state: State, weight: Any, change: Any, size: float) -> State:
    """The same form, its change about this large against the weight."""
    factor = size * weight.norm() / change.norm()
    grows = {name for name in state if name.endswith(tuple(f".{slot}" for slot in SIZED))}
    return {name: part * (factor if name in grows else 1) for name, part in state.items()}


@dataclass
class Stand:
    """What a form is measured on."""

    comfy: Any
    fast: Any
    applied: Any
    weights: State
    folder: Path
    caplog: Any

    def change(self, state: State, strength: float = 1.0) -> Any:
        """What it makes of the weight [N,K] in float32, as on the bf16 route."""
        return changes(self.applied(state, strength)[0], self.weights, self.caplog)[f"{QKV}.weight"]

    def arrives(self, state: State, strength: float) -> tuple[float, float]:
        """The gain, and the noise against what was wanted; the weight stays as it is."""
        wanted = TOKENS @ self.change(state, strength).T
        path = self.folder / "form.safetensors"
        loras.write(state, path)
        made, _, fitted = inside.pack("engine.loras").apply(path, self.fast, None, strength)
        assert all_of(fitted.fit)
        layer = self.fast.model.diffusion_model.get_submodule(QKV)
        self.comfy.model_management.load_models_gpu([self.fast])
        rows = inside.pack("engine.rows").Rows
        before, stored = layer(TOKENS), rows.of(layer, layer.weight).values.clone()
        self.comfy.model_management.load_models_gpu([made])
        change = layer(TOKENS) - before
        assert stored.dtype == torch.int8
        assert torch.equal(rows.of(layer, layer.weight).values, stored), "the weight was changed"
        self.comfy.model_management.load_models_gpu([self.fast])
        assert torch.equal(layer(TOKENS), before)
        gain = float((change * wanted).sum() / wanted.square().sum())
        return gain, float((change - gain * wanted).norm() / wanted.norm())


@pytest.fixture
def stand(comfy: Any, fast: Any, applied: Any, weights: State, models: Path, caplog: Any) -> Stand:
    return Stand(comfy, fast, applied, weights, models / "loras", caplog)


@pytest.mark.parametrize(("size", "strength"), [(0.005, 1.0), (0.02, -0.5), (0.1, 1.0)])
@pytest.mark.parametrize("state", FORMS.values(), ids=list(FORMS))
def test_it_arrives_whole_with_no_more_noise_than_a_lora(
    stand: Stand, state: State, size: float, strength: float
) -> None:
    state = sized(state, stand.weights[f"{QKV}.weight"], stand.change(state), size)
    gain, noise = stand.arrives(state, strength)
    assert gain == pytest.approx(1, abs=0.02)
    assert noise < 0.1


@pytest.mark.parametrize(("size", "strength"), [(0.005, 1.0), (0.02, 0.5), (0.1, 1.0)])
@pytest.mark.parametrize("form", DORA.values(), ids=list(DORA))
def test_magnitudes_arrive_as_well(
    stand: Stand, form: tuple[str, int, State], size: float, strength: float
) -> None:
    slot, axis, parts = form
    weight = stand.weights[f"{QKV}.weight"]
    state = {f"{NATIVE}.{name}": part for name, part in parts.items()}
    first = next(iter(state))
    state[first] = state[first] * (size * weight.norm() / stand.change(state).norm())
    lengths = (weight + stand.change(state)).norm(dim=1 - axis, keepdim=True)
    lengths = lengths * (1 + size * torch.randn(lengths.shape, generator=RANDOM))
    state[f"{NATIVE}.{slot}"] = lengths if slot == "dora_scale" else lengths.flatten()
    gain, noise = stand.arrives(state, strength)
    assert gain == pytest.approx(1, abs=0.02)
    assert noise < 0.1


def test_a_lora_and_a_lokr_of_one_layer_add_up(comfy: Any, fast: Any, models: Path) -> None:
    engine = inside.pack("engine.loras")
    layer = fast.model.diffusion_model.get_submodule(QKV)
    states = [FORMS["LoKr of some rows"], loras.native({QKV: loras.blocks()[QKV]})]
    comfy.model_management.load_models_gpu([fast])
    before, single, both = layer(TOKENS), [], fast
    for index, state in enumerate(states):
        path = models / "loras" / f"one{index}.safetensors"
        loras.write(state, path)
        alone = engine.apply(path, fast, None, 1.0)[0]
        comfy.model_management.load_models_gpu([alone])
        single.append(layer(TOKENS) - before)
        both = engine.apply(path, both, None, 1.0)[0]
    comfy.model_management.load_models_gpu([both])
    torch.testing.assert_close(layer(TOKENS) - before, sum(single), atol=1e-4, rtol=1e-3)


def test_each_run_only_copies_what_is_ready(comfy: Any, fast: Any, models: Path) -> None:
    """ComfyUI attaches anew before each picture: several LoRAs are one by then, in its dtype."""
    path = models / "loras" / "ready.safetensors"
    loras.write({f"{NATIVE}.{slot}": part for slot, part in PAIR.items()}, path)
    made = fast
    for strength in (1.0, 0.5):
        made = inside.pack("engine.loras").apply(path, made, None, strength)[0]
    beside = inside.pack("engine.beside")
    (kept,) = made.get_attachment(beside.INJECTION).sides[NATIVE]
    assert (kept.up.dtype, kept.up.shape) == (beside.dtype_of(made), (3 * H, 8))
    places = set()
    for _ in range(2):
        comfy.model_management.load_models_gpu([made])
        hooks = made.model.diffusion_model.get_submodule(QKV)._forward_hooks.values()
        (hook,) = (each for each in hooks if isinstance(each, beside.Beside))
        places |= {part.up.data_ptr() for part in hook.added}
        comfy.model_management.load_models_gpu([fast])
        assert not hook.holds
    assert places == {kept.up.data_ptr()}, "on the processor there is nothing to copy"
