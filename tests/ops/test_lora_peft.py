"""The alphas that stand in a file's head or in PEFT's settings beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from flux_hotswap.errors import LoraError
from flux_hotswap.ops.lora.names import convert
from flux_hotswap.ops.lora.parts import Module, split
from flux_hotswap.ops.lora.peft import METADATA_KEY, alphas_of

RANK = 4
OUT = "transformer.proj_out"
BLOCK = "transformer.single_transformer_blocks.7.proj_out"
Q = "transformer.transformer_blocks.0.attn.to_q"


def modules(*names: str, **parts: Any) -> list[Module]:
    """Pairs of these modules, as a file names them."""
    state = {}
    for name in names:
        state[f"{name}.lora_A.weight"] = torch.ones(RANK, 8)
        state[f"{name}.lora_B.weight"] = torch.ones(8, RANK)
        state |= {f"{name}.{slot}": value for slot, value in parts.items()}
    made = convert(state)
    return list(split(made, dict(zip(made, state, strict=True))).values())


def head(part: str = "transformer", **settings: Any) -> dict[str, str]:
    return {METADATA_KEY: json.dumps({f"{part}.{k}": v for k, v in settings.items()})}


def config(**settings: Any) -> str:
    return json.dumps({"peft_type": "LORA", **settings})


HEADS: list[tuple[dict[str, Any], float]] = [
    ({"lora_alpha": 8, "r": RANK}, 8.0),
    ({"lora_alpha": 8, "use_rslora": True}, 16.0),
    ({"lora_alpha": 8, "alpha_pattern": {"proj_out": 2}}, 2.0),
    ({"lora_alpha": 8, "alpha_pattern": {"out": 2}}, 8.0),
    ({"lora_alpha": 8, "alpha_pattern": {"^proj_out": 2}}, 2.0),
    ({"lora_alpha": 8, "alpha_pattern": {"^out": 2, ".*_out": 3, "proj_out": 4}}, 3.0),
    ({"lora_alpha": 8, "rank_pattern": {"proj_out": 99}, "r": 99, "use_rslora": True}, 16.0),
    ({"lora_alpha": 0.5, "alpha_pattern": None}, 0.5),
]


@pytest.mark.parametrize(("settings", "alpha"), HEADS)
def test_what_the_head_says(settings: dict[str, Any], alpha: float) -> None:
    found = alphas_of(modules(OUT), head(**settings), None)
    assert (found.values, found.notes) == ({OUT: alpha}, [])


@pytest.mark.parametrize(("settings", "alpha"), HEADS)
@pytest.mark.parametrize("name", ["base_model.model.proj_out", "proj_out"])
def test_what_the_file_beside_says(settings: dict[str, Any], alpha: float, name: str) -> None:
    found = alphas_of(modules(name), {}, config(**settings))
    assert (found.values, found.notes) == ({OUT: alpha}, [])


@pytest.mark.parametrize(("settings", "alpha"), HEADS)
def test_a_transformer_alone_has_its_settings_bare_in_the_head(
    settings: dict[str, Any], alpha: float
) -> None:
    """`save_lora_adapter` of diffusers; what stands beside the file is of less weight."""
    bare = {METADATA_KEY: json.dumps(settings)}
    found = alphas_of(modules("proj_out"), bare, config(lora_alpha=99))
    assert (found.values, found.notes) == ({OUT: alpha}, [])


@pytest.mark.parametrize(("start", "count"), [("pissa_niter_4", 1), ("gaussian", 0), (True, 0)])
def test_a_training_that_changed_the_model_too_is_told(start: Any, count: int) -> None:
    beside = config(lora_alpha=8, init_lora_weights=start)
    assert len(alphas_of(modules("proj_out"), {}, beside).notes) == count


WRAPPED = "base_model.model.proj_out"
LOHA = {f"hada_w{n}_{side}": (8, RANK) if side == "a" else (RANK, 8) for n in "12" for side in "ab"}
LOKR = {"lokr_w1": (2, 2), "lokr_w2_a": (4, RANK), "lokr_w2_b": (RANK, 4)}
BOTH = {
    "lokr_w1_a": (2, 1),
    "lokr_w1_b": (1, 2),
    **{n: LOKR[n] for n in ("lokr_w2_a", "lokr_w2_b")},
}
WHOLE = {"lokr_w1": (2, 2), "lokr_w2": (4, 4)}


def of_sizes(name: str, sizes: dict[str, tuple[int, int]]) -> list[Module]:
    state = {f"{name}.{slot}": torch.ones(size) for slot, size in sizes.items()}
    made = convert(state)
    return list(split(made, dict(zip(made, state, strict=True))).values())


@pytest.mark.parametrize("sizes", [LOHA, LOKR, BOTH], ids=["LoHa", "LoKr", "both in factors"])
def test_pefts_own_lohas_and_lokrs_have_their_alphas_beside(sizes: Any) -> None:
    beside = config(alpha=8, r=RANK, alpha_pattern={"proj_out": 2})
    found = alphas_of(of_sizes(WRAPPED, sizes), {}, beside)
    assert (found.values, found.factors, found.notes) == ({OUT: 2.0}, {}, [])
    assert "alpha is taken to be the rank" in alphas_of(of_sizes(WRAPPED, sizes), {}, None).notes[0]


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"alpha": 8, "r": 32}, 0.25),
        ({"alpha": 8, "r": 32, "rank_pattern": {"proj_out": 2}}, 4.0),
        ({"alpha": 8, "r": 32, "alpha_pattern": {"proj_out": 16}}, 0.5),
        ({"alpha": 8, "r": 0}, 8.0),
    ],
)
def test_a_lokr_without_a_rank_is_multiplied(settings: dict[str, Any], factor: float) -> None:
    found = alphas_of(of_sizes(WRAPPED, WHOLE), {}, config(**settings))
    assert (found.values, found.factors) == ({}, {OUT: factor})


@pytest.mark.parametrize("sizes", [LOHA, LOKR, BOTH, WHOLE])
def test_those_of_others_do_not_ask_for_settings(sizes: Any) -> None:
    """LyCORIS keeps alpha with them."""
    found = alphas_of(of_sizes("lycoris_proj_out", sizes), {}, config(alpha=8, r=2))
    assert (found.values, found.factors, found.notes) == ({}, {}, [])


PATTERNS = {
    r"single_transformer_blocks\.\d+\.proj_out": {BLOCK},
    r"^single_transformer_blocks\.\d+\.proj_out": {BLOCK},
    r"^proj_out": {OUT},
    "proj_out": {OUT, BLOCK},
    r".*attn\.to_(q|k)": {Q},
    "to_q": {Q},
    r"^attn.*": set[str](),
    ".*": {OUT, BLOCK, Q},
}


@pytest.mark.parametrize(("key", "names"), PATTERNS.items(), ids=list(PATTERNS))
def test_expressions_are_of_the_names_that_peft_has(key: str, names: set[str]) -> None:
    """Without the prefixes that only files have."""
    metadata = head(lora_alpha=8, alpha_pattern={key: 2})
    found = alphas_of(modules(OUT, BLOCK, Q), metadata, None).values
    assert {name for name, alpha in found.items() if alpha == 2} == names
    wrapped = [f"base_model.model.{name.removeprefix('transformer.')}" for name in (OUT, BLOCK, Q)]
    beside = config(lora_alpha=8, alpha_pattern={key: 2})
    assert alphas_of(modules(*wrapped), {}, beside).values == found


def test_each_model_of_a_pipeline_has_its_own() -> None:
    text = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    both = json.loads(head(lora_alpha=8)[METADATA_KEY])
    both |= json.loads(head("text_encoder_2", lora_alpha=2)[METADATA_KEY])
    found = alphas_of(modules(OUT, text), {METADATA_KEY: json.dumps(both)}, None).values
    assert sorted(found.values()) == [2.0, 8.0]
    assert found[OUT] == 8.0


@pytest.mark.parametrize("beside", [None, config(lora_alpha=2)])
def test_an_alpha_of_the_file_comes_first(beside: str | None) -> None:
    own = modules(OUT, alpha=torch.tensor(1.0))
    found = alphas_of(own, head(lora_alpha=8), beside)
    assert (found.values, found.notes) == ({}, [])


def test_the_head_comes_before_the_file_beside() -> None:
    assert alphas_of(modules(OUT), head(lora_alpha=8), config(lora_alpha=2)).values == {OUT: 8.0}


@pytest.mark.parametrize(
    ("metadata", "beside", "words"),
    [
        (head(lora_alpha="much"), None, "lora_alpha is 'much'"),
        (head(lora_alpha=True), None, "lora_alpha is True"),
        ({METADATA_KEY: "{"}, None, "lora_adapter_metadata in its header cannot be read"),
        ({METADATA_KEY: "[]"}, None, "lora_adapter_metadata in its header cannot be read"),
        ({}, "<html>", "adapter_config.json cannot be read"),
        ({}, "[" * 100_000, "adapter_config.json cannot be read"),
        ({}, config(r=4), "lora_alpha is None"),
    ],
)
def test_what_cannot_be_used_is_said(
    metadata: dict[str, str], beside: str | None, words: str
) -> None:
    found = alphas_of(modules(OUT, Q), metadata, beside)
    assert found.values == {}
    assert [note for note in found.notes if words in note] == found.notes != []


def test_names_of_peft_alone_are_a_warning() -> None:
    found = alphas_of(modules("base_model.model.proj_out"), {}, None)
    assert "keeps alpha in adapter_config.json" in found.notes[0]
    assert alphas_of(modules(OUT), {}, None).notes == []


def test_expressions_that_cannot_be_followed_are_an_error() -> None:
    with pytest.raises(LoraError, match="expression"):
        alphas_of(modules(OUT), head(lora_alpha=8, alpha_pattern={r"(a)\1": 2}), None)
