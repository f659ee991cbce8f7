"""LoRA files of every kind on ComfyUI's own model: what changes, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import (
    KINDS,
    NATIVE,
    PROJ,
    QKV,
    H,
    State,
    all_of,
    changes,
    drawn,
)


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
        (
            {"diff": torch.ones(H, H).to(torch.float8_e8m0fnu)},
            "diff holds numbers of a kind that LoRAs do not have (F8_E8M0)",
        ),
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
