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


@pytest.fixture
def adapted(fast: Any, models: Path) -> Any:
    path = models / "loras" / "whole.safetensors"
    loras.write(loras.diffusers(loras.blocks(seed=3)), path)
    return inside.pack("engine.loras").apply(path, fast, None, 1.0)[0]


def test_a_card_that_becomes_full_keeps_no_part_of_a_lora(
    comfy: Any, fast: Any, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    management = comfy.model_management
    layer = fast.model.diffusion_model.get_submodule(QKV)
    management.load_models_gpu([fast])
    plain = layer(TOKENS)
    factors, count = inside.pack("ops.lora.beside").Factors, [0]
    to = factors.to

    def until_it_is_full(*given: Any) -> Any:
        count[0] += 1
        if count[0] == 3:
            raise torch.OutOfMemoryError
        return to(*given)

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(factors, "to", until_it_is_full)
        management.load_models_gpu([adapted])
    assert adapted.loaded_size() == 0, "ComfyUI takes it for one that is not on the card"
    management.load_models_gpu([fast])
    torch.testing.assert_close(layer(TOKENS), plain, rtol=0, atol=0)
    management.load_models_gpu([adapted])
    assert not torch.equal(layer(TOKENS), plain)


@pytest.mark.parametrize("size", [(1, 16, 128, 128), (4, 16, 32, 48)], ids=str)
def test_the_model_is_loaded_with_room_for_a_lora(
    comfy: Any, fast: Any, adapted: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...]
) -> None:
    """ComfyUI counts what a latent needs, then fills a small card with weights up to that."""
    beside = inside.pack("engine.beside")
    management, options = comfy.model_management, {"transformer_options": {"wrappers": {}}}
    parts = [
        part for each in adapted.get_attachment(beside.INJECTION).sides.values() for part in each
    ]
    lora = sum(part.up.nbytes + part.down.nbytes for part in parts)
    row = fast.model.memory_required(list(size)) / size[2]
    kept: list[float] = []
    load = management.load_models_gpu

    def loaded(models: Any, minimum_memory_required: float, **named: Any) -> None:
        kept.append(minimum_memory_required)
        load(models, minimum_memory_required=minimum_memory_required, **named)

    monkeypatch.setattr(management, "load_models_gpu", loaded)
    for model in (fast, adapted, adapted, adapted.clone()):
        options["transformer_options"]["wrappers"] = model.wrappers
        comfy.sampler_helpers.prepare_sampling(model, size, {}, options)
    plain, first, again, another = kept
    assert lora <= first - plain <= lora + 1.01 * row
    assert again == plain, "it is there already"
    assert another == plain, "it takes the place of as large a one"


@pytest.mark.parametrize("fast", ["storage"], indirect=True)
def test_what_comfyui_pinned_is_let_go_before_it_is_replaced(
    comfy: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its memory would be given to others while the card's driver still has hold of it."""
    layer = fast.model.diffusion_model.get_submodule(QKV)
    gone: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: True)
    monkeypatch.setattr(comfy.model_management, "unpin_memory", gone.append)
    before = layer.weight
    layer.set_weight(layer.convert_weight(before.detach().float()), inplace_update=True, seed=1)
    assert [tensor is before for tensor in gone] == [True]
    assert layer.weight is not before
