"""LoRA files of every kind on ComfyUI's own model: what changes, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, shapes
from runtime import inside
from runtime.models import small_models
from safetensors.torch import load_file
from torch import Tensor

DEV = "flux1-dev.safetensors"
H = shapes.HIDDEN
RANDOM = torch.Generator().manual_seed(7)
PROJ, QKV = "double_blocks.0.img_attn.proj", "double_blocks.0.img_attn.qkv"
NATIVE = f"diffusion_model.{PROJ}"

State = dict[str, Tensor]


def drawn(*shape: int, size: float = 0.05) -> Tensor:
    return torch.randn(*shape, generator=RANDOM) * size


@pytest.fixture(scope="session")
def full(comfy: Any, models: Path) -> Any:
    with torch.inference_mode():
        return inside.pack("engine.models").load_flux(models / "diffusion_models" / DEV)


@pytest.fixture(scope="session")
def weights(models: Path) -> State:
    return {k: v.float() for k, v in load_file(models / "diffusion_models" / DEV).items()}


@pytest.fixture
def applied(models: Path, full: Any) -> Callable[..., tuple[Any, Any]]:
    """Writes a file, applies it; the model with it and how it fitted."""

    def apply(state: State, strength: float = 1.0, metadata: Any = None) -> tuple[Any, Any]:
        path = models / "loras" / "some.safetensors"
        loras.write(state, path, metadata)
        made, _, fitted = inside.pack("engine.loras").apply(path, full, None, strength)
        return made, fitted.fit

    return apply


def changes(made: Any, weights: State, caplog: Any) -> State:
    """What the patches change of each weight, in float32; the core may log no error."""
    import comfy.lora

    found = {}
    for key, patches in made.patches.items():
        name = key.removeprefix("diffusion_model.")
        before = weights[name].clone()
        after = comfy.lora.calculate_weight(patches, before.clone(), key)
        found[name] = after - before
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    return found


def all_of(fit: Any) -> bool:
    return fit.matched == fit.keys and not fit.misfits


KINDS: dict[str, State] = {
    "pair": {"lora_up.weight": drawn(H, 4), "lora_down.weight": drawn(4, H)},
    "DoRA of columns": {
        "lora_up.weight": drawn(H, 4),
        "lora_down.weight": drawn(4, H),
        "dora_scale": 1 + drawn(1, H),
    },
    "LoHa": {
        "hada_w1_a": drawn(H, 2),
        "hada_w1_b": drawn(2, H),
        "hada_w2_a": drawn(H, 2),
        "hada_w2_b": drawn(2, H),
    },
    "LoKr": {"lokr_w1": drawn(8, 8), "lokr_w2": drawn(H // 8, H // 8)},
    "LoKr in factors": {
        "lokr_w1": drawn(8, 8),
        "lokr_w2_a": drawn(H // 8, 2),
        "lokr_w2_b": drawn(2, H // 8),
        "alpha": torch.tensor(1.0),
    },
    "GLoRA": {
        "a1.weight": drawn(H, 2),
        "a2.weight": drawn(2, H),
        "b1.weight": drawn(H, 2),
        "b2.weight": drawn(2, H),
    },
    "OFT": {"oft_blocks": drawn(8, H // 8, H // 8)},
    "BOFT": {"oft_blocks": drawn(2, H // 8, 8, 8)},
    "BOFT with rescale": {"oft_blocks": drawn(2, H // 8, 8, 8), "rescale": 1 + drawn(H, 1)},
    "difference": {"diff": drawn(H, H), "diff_b": drawn(H)},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_fits_changes_the_weight(
    applied: Any, weights: State, caplog: Any, kind: State
) -> None:
    made, fit = applied({f"{NATIVE}.{slot}": value for slot, value in kind.items()})
    assert all_of(fit)
    change = changes(made, weights, caplog)
    assert float(change[f"{PROJ}.weight"].norm()) > 0
    assert ("diff_b" in kind) == (f"{PROJ}.bias" in change)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_does_not_fit_is_refused(applied: Any, kind: State) -> None:
    """The same on a weight of other rows."""
    error = inside.pack("errors").LoraError
    where = "diffusion_model.single_blocks.0.linear1"
    with pytest.raises(error, match=r"some\.safetensors is made for a model of another size"):
        applied({f"{where}.{slot}": v for slot, v in kind.items() if slot != "diff_b"})


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ({"lora_up.weight": drawn(H, 4)}, "lora_up.weight has no lora_down"),
        ({"lora_B.weight": drawn(H, 4), "alpha": torch.ones(())}, "lora_B.weight has no"),
        ({"lora_A.weight": drawn(0, H), "lora_B.weight": drawn(H, 0)}, "lora_A.weight is empty"),
        ({"lokr_w1": drawn(8, 8)}, "lokr_w1 has no lokr_w2"),
        (
            {"hada_w1_a": drawn(H, 2), "hada_w1_b": drawn(2, H)},
            "hada_w1_a has no hada_w2_a and hada_w2_b",
        ),
        ({**KINDS["pair"], "alpha": torch.ones(4)}, "alpha is 4 numbers"),
        ({**KINDS["pair"], "alpha": torch.tensor(float("nan"))}, "alpha holds numbers that"),
        ({"diff": drawn(H, H) / 0}, "diff holds numbers that are infinite"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(applied: Any, slots: State, words: str) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in slots.items()}
    good = loras.native({QKV: loras.blocks()[QKV]})
    with pytest.raises(
        inside.pack("errors").LoraError, match=r"some\.safetensors cannot be used: "
    ) as told:
        applied({**good, **state})
    assert f"{NATIVE}.{words}" in str(told.value)


def test_one_module_by_two_names_is_refused(applied: Any) -> None:
    part = {QKV: loras.blocks()[QKV]}
    with pytest.raises(inside.pack("errors").LoraError, match=r"img_attn\.qkv\.weight twice"):
        applied(loras.native(part) | loras.kohya(part))


def test_biases_of_parts_go_to_their_rows(applied: Any, weights: State, caplog: Any) -> None:
    delta, bias = [drawn(H, H) for _ in "qkv"], [drawn(H) for _ in "qkv"]
    state = {}
    for name, weight, shift in zip("qkv", delta, bias, strict=True):
        start = f"lycoris_transformer_blocks_0_attn_to_{name}"
        state |= {f"{start}.diff": weight, f"{start}.diff_b": shift}
    made, fit = applied(state, 0.5)
    assert all_of(fit)
    assert fit.patched == 2
    change = changes(made, weights, caplog)
    torch.testing.assert_close(change[f"{QKV}.weight"], torch.cat(delta) * 0.5, atol=1e-6, rtol=0)
    torch.testing.assert_close(change[f"{QKV}.bias"], torch.cat(bias) * 0.5, atol=1e-6, rtol=0)


def test_halves_of_norm_out_change_places(applied: Any, weights: State, caplog: Any) -> None:
    """Its name in diffusers has scale before shift there."""
    delta, bias = drawn(2 * H, H), drawn(2 * H)
    state = {
        "lycoris_norm_out_linear.diff": delta,
        "lycoris_norm_out_linear.diff_b": bias,
    }
    change = changes(applied(state)[0], weights, caplog)
    name = "final_layer.adaLN_modulation.1"
    torch.testing.assert_close(
        change[f"{name}.weight"], torch.cat(delta.chunk(2)[::-1]), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        change[f"{name}.bias"], torch.cat(bias.chunk(2)[::-1]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_peft_biases_are_added(
    applied: Any, weights: State, caplog: Any, alpha: float | None
) -> None:
    """`lora_bias`: what is behind the second factor is scaled as that is."""
    part = {"single_blocks.1.linear1": loras.blocks()["single_blocks.1.linear1"]}
    state = loras.diffusers(part, alpha=alpha)
    shifts = []
    for name in loras.diffusers_names("single_blocks.1.linear1"):
        rows = len(state[f"transformer.{name}.lora_B.weight"])
        shifts.append(drawn(rows))
        state[f"transformer.{name}.lora_B.bias"] = shifts[-1]
    made, fit = applied(state)
    assert all_of(fit)
    change = changes(made, weights, caplog)["single_blocks.1.linear1.bias"]
    wanted = torch.cat(shifts) * (1.0 if alpha is None else alpha / loras.RANK)
    torch.testing.assert_close(change, wanted, atol=1e-6, rtol=0)


LEFT = {
    "a bias that the layer has not": ({f"{NATIVE}.norm.diff_b": drawn(H)}, 1),
    "a part without its pair": ({f"diffusion_model.{QKV}.dora_scale": drawn(3 * H, 1)}, 1),
    "two ways at once": ({f"{NATIVE}.diff": drawn(H, H)}, 1),
    "a spelling twice": ({f"{NATIVE}.lora_B.weight": drawn(H, 4)}, 1),
    "another tensor": ({f"{NATIVE}.weight": drawn(H, H)}, 1),
    "the first factor's bias": ({f"{NATIVE}.lora_A.bias": drawn(4)}, 1),
    "an alpha for nothing": ({f"diffusion_model.{QKV}.alpha": torch.ones(())}, 1),
}


@pytest.mark.parametrize(("more", "count"), LEFT.values(), ids=list(LEFT))
def test_what_is_left_is_said(applied: Any, more: State, count: int) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in KINDS["pair"].items()} | more
    fit = applied(state)[1]
    assert fit.matched == len(state) - count
    assert len(fit.unread) == count
    assert "not matched" in inside.pack("ops.lora.fit").describe(fit, has_clip=False)[1]


# --- DoRA ---

FUSED = "single_blocks.1.linear1"
NORM_OUT = "final_layer.adaLN_modulation.1"
PEFT_SPELLINGS = {
    "diffusers": "lora_magnitude_vector",
    "OneTrainer": "lora_magnitude_vector.weight",
    "PEFT": "lora_magnitude_vector.default.weight",
    "ai-toolkit": "magnitude",
}


def lengths_of(weight: Tensor, axis: int = 0) -> Tensor:
    norm = weight.norm(dim=1 - axis)
    return norm * (1 + 0.1 * torch.randn(len(norm), generator=RANDOM))


def whole_change(delta: loras.Delta, name: str) -> Tensor:
    return delta[name].up @ delta[name].down


def with_lengths(weight: Tensor, delta: Tensor, lengths: Tensor, strength: float) -> Tensor:
    """The change of a weight by PEFT's DoRA, per row, written out."""
    moved = weight + strength * delta
    return lengths[:, None] * moved / moved.square().sum(dim=1, keepdim=True).sqrt() - weight


@pytest.mark.parametrize("strength", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("spelled", PEFT_SPELLINGS.values(), ids=list(PEFT_SPELLINGS))
def test_pefts_magnitudes_are_applied_to_their_rows(
    applied: Any, weights: State, caplog: Any, spelled: str, strength: float
) -> None:
    """Of fused layers each part has its own; those of norm_out change places as its halves do."""
    delta = {name: part for name, part in loras.everything().items() if name != "img_in"}
    state, wanted = loras.diffusers(delta), {}
    for name in delta:
        weight = weights[f"{name}.weight"]
        lengths = lengths_of(weight)
        wanted[name] = with_lengths(weight, whole_change(delta, name), lengths, strength)
        if name == NORM_OUT:
            lengths = torch.cat(lengths.chunk(2)[::-1])
        names = [f"transformer.{part}" for part in loras.diffusers_names(name)]
        rows = [len(state[f"{part}.lora_B.weight"]) for part in names]
        for part, some in zip(names, lengths.split(rows), strict=True):
            state[f"{part}.{spelled}"] = some
    made, fit = applied(state, strength)
    assert all_of(fit)
    change = changes(made, weights, caplog)
    for name, expected in wanted.items():
        torch.testing.assert_close(change[f"{name}.weight"], expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("slots", ["pair", "LoHa", "LoKr", "GLoRA"])
def test_lycoris_magnitudes_are_exact(
    applied: Any, weights: State, caplog: Any, slots: str, axis: int, strength: float
) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in KINDS[slots].items()}
    weight = weights[f"{PROJ}.weight"]
    delta = changes(applied(state)[0], weights, caplog)[f"{PROJ}.weight"]
    scale = lengths_of(weight, axis).unsqueeze(1 - axis)
    made, fit = applied(state | {f"{NATIVE}.dora_scale": scale}, strength)
    assert all_of(fit)
    moved = weight + delta
    expected = scale * moved / moved.norm(dim=1 - axis, keepdim=True) - weight
    change = changes(made, weights, caplog)[f"{PROJ}.weight"]
    torch.testing.assert_close(change, strength * expected, atol=2e-6, rtol=1e-4)


def test_magnitudes_of_a_fused_layer_whole(applied: Any, weights: State, caplog: Any) -> None:
    delta = {FUSED: loras.blocks()[FUSED]}
    weight = weights[f"{FUSED}.weight"]
    lengths = lengths_of(weight)
    state = loras.kohya(delta, alpha=2.0)
    state["lora_unet_single_blocks_1_linear1.dora_scale"] = lengths[:, None]
    made, fit = applied(state)
    assert all_of(fit)
    expected = with_lengths(weight, whole_change(delta, FUSED), lengths, 1.0)
    change = changes(made, weights, caplog)[f"{FUSED}.weight"]
    torch.testing.assert_close(change, expected, atol=2e-6, rtol=1e-4)


def test_magnitudes_of_both_spellings_count_once(applied: Any) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in KINDS["DoRA of columns"].items()}
    fit = applied(state | {f"{NATIVE}.lora_magnitude_vector": torch.ones(H)})[1]
    assert fit.unread == [f"{NATIVE}.dora_scale"]


@pytest.mark.parametrize("route", ["storage", "int8"])
def test_magnitudes_reach_a_weight_in_int8(
    comfy: Any, models: Path, monkeypatch: Any, route: str
) -> None:
    """The layer that has them leaves int8: what the weight becomes is off by bf16's rounding."""
    loading, engine = inside.pack("engine.models"), inside.pack("engine.loras")
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, route)
    fast, _ = loading.load_fast(models / "diffusion_models" / DEV, modulation=False)
    rows = inside.pack("engine.arrival").Rows
    layer = fast.model.diffusion_model.get_submodule(QKV)
    weight = rows.of(layer).read(slice(None)).float()
    delta, lengths = {QKV: loras.blocks()[QKV]}, lengths_of(weight)
    state = loras.native(delta) | {f"diffusion_model.{QKV}.magnitude": lengths}
    path = models / "loras" / "fast-dora.safetensors"
    loras.write(state, path)
    made, _, fitted = engine.apply(path, fast, None, 1.0)
    assert all_of(fitted.fit)
    comfy.model_management.load_models_gpu([made])
    wanted = weight + with_lengths(weight, whole_change(delta, QKV), lengths, 1.0)
    found = layer.weight
    found = found.dequantize() if hasattr(found, "_qdata") else found
    error = (found.float() - wanted).norm() / wanted.norm()
    assert float(error) < (0.003 if found is layer.weight else 0.02)


# --- alphas that stand elsewhere ---

CONFIG = '{"peft_type": "LORA", "lora_alpha": 16, "r": 4, "alpha_pattern": {"^proj_out": 2}}'


@pytest.mark.parametrize(
    ("file", "config", "others", "gain"),
    [
        ("adapter_model", "adapter_config.json", True, 4.0),
        ("mine", "adapter_config.json", False, 4.0),
        ("mine", "adapter_config.json", True, 1.0),
        ("mine", "mine.adapter_config.json", True, 4.0),
        ("mine", "", False, 1.0),
    ],
)
def test_settings_beside_the_file_count(
    full: Any,
    weights: State,
    caplog: Any,
    tmp_path: Path,
    file: str,
    config: str,
    others: bool,
    gain: float,
) -> None:
    delta = {PROJ: loras.blocks()[PROJ]}
    path = tmp_path / f"{file}.safetensors"
    loras.write(loras.diffusers(delta, prefix="base_model.model."), path)
    if others:
        loras.write(loras.kohya(delta), tmp_path / "other.safetensors")
    if config:
        (tmp_path / config).write_text(CONFIG)
    made, _, fitted = inside.pack("engine.loras").apply(path, full, None, 1.0)
    change = changes(made, weights, caplog)[f"{PROJ}.weight"]
    torch.testing.assert_close(change, gain * whole_change(delta, PROJ), atol=1e-6, rtol=1e-5)
    assert all_of(fitted.fit)
    assert len(fitted.fit.notes) == (gain == 1.0)


def test_other_settings_beside_a_file_are_another_state(tmp_path: Path) -> None:
    """What was made before is not taken, and the node runs anew."""
    from types import SimpleNamespace

    state_of = inside.pack("engine.lora_file").state_of
    found = SimpleNamespace(path=tmp_path / "adapter_model.safetensors", sha256="a" * 64)
    states = [state_of(found)]
    for text in ("{}", CONFIG):
        (tmp_path / "adapter_config.json").write_text(text)
        states.append(state_of(found))
    assert states[0] == found.sha256
    assert len(set(states)) == 3


def test_both_rooms_call_the_settings_the_same() -> None:
    name = inside.pack("ops.lora.peft").CONFIG
    ending = inside.pack("lora_fetch.store").CONFIG
    assert ending == f".{name}"


# --- what is refused for what it is ---


def control(weights: State) -> State:
    """As the Canny and Depth LoRAs are: every layer, the first with twice the channels, norms."""
    state = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if weight.ndim == 2:
            width = 128 if module == "img_in" else weight.shape[1]
            state[f"{module}.lora_A.weight"] = drawn(4, width)
            state[f"{module}.lora_B.weight"] = drawn(len(weight), 4)
            state[f"{module}.lora_B.bias"] = drawn(len(weight))
        elif name.endswith("_norm.scale"):
            state[name] = weight
    return state


def test_control_loras_are_refused(applied: Any, weights: State) -> None:
    with pytest.raises(inside.pack("errors").LoraError, match="needs a control image"):
        applied(control(weights))


def test_a_checkpoint_is_called_one(applied: Any, weights: State) -> None:
    with pytest.raises(inside.pack("errors").LoraError, match="is a checkpoint or a part of one"):
        applied(weights)


# --- text encoders ---

CLIP = {
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight": drawn(32, 4),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": drawn(4, 32),
}


@pytest.fixture(scope="session")
def clip(comfy: Any) -> Any:
    import comfy.sd

    folder = small_models() / "text_encoders"
    files = [str(folder / name) for name in ("clip_l.safetensors", "t5xxl_fp16.safetensors")]
    with torch.inference_mode():
        return comfy.sd.load_clip(files, clip_type=comfy.sd.CLIPType.FLUX)


@pytest.mark.parametrize("arrival", ["hosted", "whole"])
def test_text_encoders_get_the_strength_that_was_asked_for(
    models: Path, monkeypatch: Any, clip: Any, arrival: str
) -> None:
    """They are never in int8: neither go_fast's multiplier nor what arrives there is theirs."""
    from types import SimpleNamespace

    engine, plan = inside.pack("engine.loras"), inside.pack("prediction.plan")
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, "storage")
    fast, _ = inside.pack("engine.models").load_fast(
        models / "diffusion_models" / DEV, modulation=False
    )
    path = models / "loras" / "with-text.safetensors"
    delta = {QKV: loras.blocks()[QKV]}
    loras.write(loras.kohya(delta) | CLIP, path)
    found = SimpleNamespace(
        path=path, sha256=arrival, source="x", size=1, trigger_words=(), warnings=()
    )
    lora = plan.Lora("x", 0.8, 1.2, 1.5, arrival)
    applied = engine.Applied(lora, found)
    _, text, (fitted,) = engine.apply_or_take([applied], fast, clip)
    assert all_of(fitted.fit)
    ((patch,),) = text.patcher.patches.values()
    assert patch[0] == 0.8
    assert "text encoders: strength 0.8" in applied.report(fitted, text).splitlines()
