"""Alphas that stand beside a file, and the strength of the text encoders' part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import (
    DEV,
    PROJ,
    QKV,
    State,
    all_of,
    changes,
    drawn,
    whole_change,
)

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


@pytest.mark.parametrize(("algo", "gain"), [("dylora", 4.0), ("lora", 1.0)])
def test_dylora_has_another_alpha(
    applied: Any, weights: State, caplog: Any, algo: str, gain: float
) -> None:
    delta = {PROJ: loras.blocks()[PROJ]}
    made, fit = applied(loras.kohya(delta), metadata={"ss_network_args": f'{{"algo": "{algo}"}}'})
    assert all_of(fit)
    change = changes(made, weights, caplog)[f"{PROJ}.weight"]
    torch.testing.assert_close(change, gain * whole_change(delta, PROJ), atol=1e-6, rtol=1e-5)


# --- text encoders ---

CLIP = {
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight": drawn(32, 4),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": drawn(4, 32),
}


@pytest.mark.parametrize("arrival", ["hosted", "whole"])
def test_text_encoders_get_the_strength_that_was_asked_for(
    models: Path, monkeypatch: Any, clip: Any, arrival: str
) -> None:
    """They are never in int8: neither go_fast's multiplier nor what arrives there is theirs."""
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
