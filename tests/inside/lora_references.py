"""Files that LyCORIS, PEFT and diffusers themselves wrote, against what they make of them.

Nothing here goes through our formulas: the libraries wrap the small FLUX, move every number, save,
and tell what the weights are then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import lycoris_files, peft_files
from mini_flux.load_diffusers import load_transformer, to_diffusers
from mini_flux.references import Written, answers
from runtime import inside
from runtime.environment import ROOT
from runtime.lora_states import DEV, State, all_of, changes
from torch import nn

LIMIT = 1e-4
"""How far a change may be from the library's, as a share of it."""
LEAST = 0.01
"""How large a change has to be, as a share of its weight, to say something."""
FAST_LIMIT, FAST_CHANGE = 0.01, 0.02
"""How far a weight may be from what the library makes of it with go_fast, and the change alone."""

Networks = dict[str, nn.Module]


def test_the_page_says_how_exactly() -> None:
    page = (ROOT / "docs" / "loras.md").read_text(encoding="utf-8")
    assert f"is within {LIMIT:.2%} of theirs".replace("%", " %") in page
    said = f"is within {FAST_LIMIT:.0%}, and its change within {FAST_CHANGE:.0%}."
    assert said.replace("%", " %") in page


@pytest.fixture(scope="module")
def networks(models: Path, weights: State) -> Networks:
    """The small FLUX by the prefix of names for it: as diffusers has it, and as it is published."""
    with torch.inference_mode():
        return {
            "lycoris": load_transformer("dev", models),
            "lora_unet": lycoris_files.published(weights),
        }


def as_in(prefix: str, state: State, weights: State) -> State:
    """Published tensors by the names of a network, with zeros for those that are not there."""
    whole = {name: state.get(name, torch.zeros_like(value)) for name, value in weights.items()}
    return to_diffusers(whole) if prefix == "lycoris" else whole


def moved(state: State) -> set[str]:
    return {name for name, change in state.items() if bool(change.any())}


def far(found: State, wanted: State, against: State, names: Iterable[str]) -> dict[str, float]:
    """How far tensors are from what is wanted, as shares of what they are held against."""
    return {n: float((found[n] - wanted[n]).norm() / against[n].norm()) for n in names}


def assert_the_same(found: State, written: Written, before: State) -> None:
    """Every weight and bias is changed as by the library, or by neither; all weights are."""
    wanted = written.changes
    assert moved(found) == moved(wanted) >= {n for n, value in before.items() if value.ndim == 2}
    sizes = {name: float(wanted[name].norm() / before[name].norm()) for name in moved(wanted)}
    assert min(sizes.values()) > LEAST
    error = far(found, wanted, wanted, moved(wanted))
    assert {name: share for name, share in error.items() if not share < LIMIT} == {}


@pytest.mark.parametrize(("prefix", "strength"), [("lycoris", 1.0), ("lora_unet", 0.7)])
@pytest.mark.parametrize("name", lycoris_files.RECIPES)
def test_what_lycoris_wrote_is_what_lycoris_makes(
    full: Any,
    weights: State,
    networks: Networks,
    caplog: Any,
    tmp_path: Path,
    name: str,
    prefix: str,
    strength: float,
) -> None:
    recipe, network = lycoris_files.RECIPES[name], deepcopy(networks[prefix])
    path = tmp_path / "written.safetensors"
    written = lycoris_files.write(recipe, network, path, prefix, strength)
    made, _, fitted = inside.pack("engine.loras").apply(path, full, None, strength)
    assert all_of(fitted.fit)
    found = as_in(prefix, changes(made, weights, caplog), weights)
    assert_the_same(found, written, as_in(prefix, weights, weights))


WRITERS = {
    "PEFT": (peft_files.with_peft, 1.0),
    "diffusers": (peft_files.with_diffusers, 0.7),
    "diffusers without a pipeline": (peft_files.without_pipeline, 1.0),
}
"""Those that keep all settings; each strength is one of theirs."""
BOTH = {"decompose_both": True}
CASES = {
    f"{name}, {writer}": (*how, settings)
    for name, settings in peft_files.SETTINGS.items()
    for writer, how in WRITERS.items()
} | {
    "LoRA, older diffusers": (peft_files.with_older_diffusers, 1.0, {"lora_alpha": 4}),
    "LoHa, PEFT": (peft_files.with_loha, 0.7, {"alpha": 32}),
    "LoKr, PEFT": (peft_files.with_lokr, 0.7, {"alpha": 16, "alpha_pattern": {"to_q": 8}}),
    "LoKr in factors, PEFT": (peft_files.with_lokr, 1.0, {"alpha": 16, "r": 2, **BOTH}),
    "LoKr without a rank, PEFT": (
        peft_files.with_lokr,
        1.0,
        {"alpha": 48, "r": 64, "rank_pattern": {"to_q": 32, "to_k": 32}},
    ),
}


@pytest.mark.parametrize(("write", "strength", "settings"), CASES.values(), ids=list(CASES))
def test_what_peft_and_diffusers_wrote_is_what_they_make(
    full: Any,
    weights: State,
    networks: Networks,
    caplog: Any,
    tmp_path: Path,
    write: Callable[..., Written],
    strength: float,
    settings: dict[str, Any],
) -> None:
    written = write(settings, deepcopy(networks["lycoris"]), tmp_path, strength)
    caplog.clear()  # of what diffusers tells of itself while it saves
    made, _, fitted = inside.pack("engine.loras").apply(written.path, full, None, strength)
    assert all_of(fitted.fit)
    assert not fitted.fit.notes
    found = as_in("lycoris", changes(made, weights, caplog), weights)
    assert_the_same(found, written, as_in("lycoris", weights, weights))


@pytest.mark.parametrize("start", ["olora", "OLoRA"])
def test_what_peft_leaves_in_the_model_is_told(
    full: Any, networks: Networks, tmp_path: Path, start: str
) -> None:
    """OLoRA takes from the model's weights what it gives to the LoRA, and saves that alone."""
    settings = {"lora_alpha": 8, "init_lora_weights": start}
    written = peft_files.with_peft(settings, deepcopy(networks["lycoris"]), tmp_path, 1.0)
    (note,) = inside.pack("engine.loras").apply(written.path, full, None, 1.0)[2].fit.notes
    assert f"init_lora_weights '{start}'" in note


REFUSED = {
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "total_step": 10}, "is an AdaLoRA of PEFT"),
    "KaSA": ("LoraConfig", {"kasa_config": {}}, "is a KaSA LoRA of PEFT"),
    "OFT": ("OFTConfig", {"r": 0, "oft_block_size": 8}, "none of its .* keys matches"),
    "IA3": ("IA3Config", {"feedforward_modules": []}, "none of its .* keys matches"),
}


@pytest.mark.parametrize(("config", "settings", "words"), REFUSED.values(), ids=list(REFUSED))
def test_other_adapters_of_peft_are_refused(
    full: Any, networks: Networks, tmp_path: Path, config: str, settings: Any, words: str
) -> None:
    path = peft_files.save_other(config, settings, deepcopy(networks["lycoris"]), tmp_path)
    with pytest.raises(inside.pack("errors").LoraError, match=words):
        inside.pack("engine.loras").apply(path, full, None, 1.0)


# --- with go_fast ---


@dataclass(frozen=True)
class Fast:
    """The small FLUX with go_fast.

    Attributes:
        model: as the loader gives it.
        layers: within its blocks.
        before: what those compute with, without a LoRA.
    """

    model: Any
    layers: dict[str, Any]
    before: State


@pytest.fixture(scope="module", params=["int8", "storage"])
def fast(request: pytest.FixtureRequest, comfy: Any, models: Path, weights: State) -> Fast:
    path = models / "diffusion_models" / DEV
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
        model = inside.pack("engine.models").load_fast(path, modulation=False)[0]
        names = (n.removesuffix(".weight") for n, value in weights.items() if value.ndim == 2)
        network = model.model.diffusion_model
        layers = {name: network.get_submodule(name) for name in names if "_blocks." in name}
        comfy.model_management.load_models_gpu([model])
        return Fast(model, layers, answers(layers))


def assert_as_large(
    comfy: Any, fast: Fast, weights: State, written: Written, strength: float
) -> None:
    """What the layers compute with is what the library would make of their weights in full."""
    made, _, fitted = inside.pack("engine.loras").apply(written.path, fast.model, None, strength)
    assert all_of(fitted.fit)
    comfy.model_management.load_models_gpu([made])
    after = answers(fast.layers)
    change = {name: after[name] - before for name, before in fast.before.items()}
    found, known = (as_in("lycoris", state, weights) for state in (change, fast.before))
    wanted = written.changes
    names = {name for name in moved(wanted) if "_blocks." in name and known[name].ndim == 2}
    assert len(names) == 40
    whole = {name: known[name] + wanted[name] for name in names}
    assert max(far(found, wanted, whole, names).values()) < FAST_LIMIT
    assert max(far(found, wanted, wanted, names).values()) < FAST_CHANGE


FAST = (
    *("LoCon", "LoHa", "LoKr in factors", "full", "DoRA of rows", "DoRA of columns, LoKr"),
    *("GLoRA", "OFT with rescale", "BOFT"),
)


@pytest.mark.parametrize("name", FAST)
def test_what_lycoris_wrote_arrives_with_go_fast(
    comfy: Any, fast: Fast, weights: State, networks: Networks, tmp_path: Path, name: str
) -> None:
    recipe, network = lycoris_files.RECIPES[name], deepcopy(networks["lycoris"])
    path = tmp_path / "written.safetensors"
    written = lycoris_files.write(recipe, network, path, "lycoris", 1.0)
    assert_as_large(comfy, fast, weights, written, 1.0)


@pytest.mark.parametrize("name", ["biases", "DoRA"])
def test_what_diffusers_wrote_arrives_with_go_fast(
    comfy: Any, fast: Fast, weights: State, networks: Networks, tmp_path: Path, name: str
) -> None:
    settings, network = peft_files.SETTINGS[name], deepcopy(networks["lycoris"])
    written = peft_files.with_diffusers(settings, network, tmp_path, 0.7)
    assert_as_large(comfy, fast, weights, written, 0.7)
