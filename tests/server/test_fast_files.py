"""Which files go_fast takes, as what, and what it says of the others."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fast_site import DEV, REQUEST, Site, State, dev, error
from mini_flux.load_diffusers import to_diffusers
from runtime.client import ExecutionError
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from safetensors.torch import save_file
from torch import Tensor

from flux_hotswap.ops.checkpoint.layout import is_block_linear

STORAGE = "int8 storage (CPU has no int8 matmul)"
E5M2 = torch.float8_e5m2
FP8 = torch.float8_e4m3fn
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ComfyServer(find_comfyui(), models=small_models()) as server:
        yield Site(server)


@pytest.fixture(scope="module")
def full(site: Site) -> Tensor:
    return site.draw(go_fast=False)


@pytest.fixture(scope="module")
def fast(site: Site) -> Tensor:
    return site.draw()


@pytest.fixture(scope="module")
def full_with_lora(site: Site) -> Tensor:
    return site.draw(go_fast=False, loras=[(site.put_lora("one", seed=3), {})])


def put(site: Site, name: str, state: State, metadata: dict[str, str] | None = None) -> str:
    """Save a model where the loader looks; its name there."""
    path = site.server.models_dir / name
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return path.name


# --- layouts that are quantised by us ---


def all_in_one(state: State) -> State:
    beside = {"text_encoders.t5xxl.transformer.shared.weight": torch.zeros(4, 4)}
    beside["vae.decoder.conv_in.weight"] = torch.zeros(4, 4, 3, 3)
    return {PREFIX + name: tensor for name, tensor in state.items()} | beside


def halves(state: State) -> State:
    return {name: tensor.to(torch.float16) for name, tensor in state.items()}


def as_it_is(state: State) -> State:
    return state


OURS: dict[str, tuple[str, Callable[[State], State]]] = {
    "bf16": ("diffusion_models", as_it_is),
    "fp16": ("diffusion_models", halves),
    "all in one": ("checkpoints", all_in_one),
    "diffusers": ("diffusion_models", to_diffusers),
}


@pytest.mark.parametrize(("folder", "change"), OURS.values(), ids=list(OURS))
def test_a_layout_draws_the_same(
    site: Site, fast: Tensor, folder: str, change: Callable[[State], State]
) -> None:
    name = put(site, f"{folder}/layout-{change.__name__}.safetensors", change(dev()))
    before = site.times_quantised()
    assert torch.equal(site.draw(name), fast)
    assert site.reports == [STORAGE]
    assert site.times_quantised() == before + 1


@pytest.mark.parametrize("change", [all_in_one, to_diffusers])
def test_a_layout_draws_the_same_in_bf16(
    site: Site, full: Tensor, change: Callable[[State], State]
) -> None:
    name = put(site, f"checkpoints/bf16-{change.__name__}.safetensors", change(dev()))
    assert error(site.draw(name, go_fast=False), full) < 1e-4


# --- files that are quantised already ---


def plain(state: State, dtype: torch.dtype = FP8) -> State:
    """As Kijai's first files and ComfyUI's own cast: no scales."""
    return {
        name: tensor.to(dtype) if is_block_linear(name) else tensor
        for name, tensor in state.items()
    }


def all_plain(state: State) -> State:
    """Every tensor in e4m3, biases and norms too."""
    return {name: tensor.to(FP8) for name, tensor in state.items()}


def scaled(state: State, end: str = "weight_scale", *, rows: bool = False) -> State:
    """One scale for a weight, or for each of its rows."""
    made: State = {}
    for name, tensor in state.items():
        made[name] = tensor
        if is_block_linear(name):
            loudest = tensor.float().abs()
            scale = (loudest.amax(dim=1, keepdim=True) if rows else loudest.max()) / 448
            made[name] = (tensor.float() / scale).to(FP8)
            made[name.removesuffix("weight") + end] = scale
    return made


def with_marker(state: State) -> State:
    """As the older scaled files, which a tensor tells by its dtype."""
    made = scaled(state, "scale_weight")
    for name in [name for name in made if name.endswith(".scale_weight")]:
        made[name.replace("scale_weight", "scale_input")] = torch.ones(())
    return made | {"scaled_fp8": torch.empty(2, dtype=FP8)}


def mixed(state: State) -> State:
    loud = {name: t.to(E5M2) for name, t in state.items() if "img_mlp.0.w" in name}
    return plain(state) | loud


def metadata_of(state: State) -> dict[str, str] | None:
    """What tells ComfyUI of the scales that lie beside weights; None without any."""
    names = [name.removesuffix(".weight_scale") for name in state if name.endswith("weight_scale")]
    if not names:
        return None
    layers = {name: {"format": "float8_e4m3fn"} for name in names}
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


THEIRS: dict[str, tuple[str, Callable[[State], State], str]] = {
    "plain": ("diffusion_models", plain, "F8_E4M3"),
    "plain, all tensors": ("diffusion_models", all_plain, "F8_E4M3"),
    "scaled": ("diffusion_models", scaled, "F8_E4M3"),
    "scaled by rows": ("diffusion_models", lambda state: scaled(state, rows=True), "F8_E4M3"),
    "scaled_fp8": ("diffusion_models", with_marker, "F8_E4M3"),
    "e5m2": ("diffusion_models", lambda state: plain(state, E5M2), "F8_E5M2"),
    "e4m3 and e5m2": ("diffusion_models", mixed, "F8_E4M3 and F8_E5M2"),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_a_quantised_file_is_the_cores_to_run(
    site: Site, full: Tensor, full_with_lora: Tensor, kind: str
) -> None:
    """With our LoRAs beside: what a LoRA changes is far less than their rounding."""
    folder, change, engine = THEIRS[kind]
    state = change(dev())
    name = put(site, f"{folder}/theirs, {kind}.safetensors", state, metadata_of(state))
    before = site.times_quantised()
    drawn = site.draw(name)
    assert site.reports == [f"{engine} (as the file is, run by ComfyUI)"]
    assert site.times_quantised() == before
    assert 0 < error(drawn, full) < 0.5
    lora = site.put_lora("one", seed=3)
    changed = site.draw(name, loras=[(lora, {"go_fast_multiplier": 1.0, "go_fast_lora": "whole"})])
    assert error(changed - drawn, full_with_lora - full) < 0.5


def test_what_we_keep_can_be_chosen_where_the_core_knows_it(site: Site, fast: Tensor) -> None:
    """Elsewhere it is refused; nothing is drawn from steps taken for weights."""
    kept = next(path for path in site.kept if path.name.startswith("flux1-dev-int8-"))
    (site.models / "copied.safetensors").write_bytes(kept.read_bytes())
    try:
        drawn = site.draw("copied.safetensors")
    except ExecutionError as refused:
        assert refused.exception_type.endswith("CheckpointError")
        words = r"copied\.safetensors .* this ComfyUI knows \('int8_tensorwise'\); choose"
        assert re.search(words, refused.message)
    else:
        assert error(drawn, fast) < 0.05


# --- files that cannot be used ---


def sdxl(path: Path) -> None:
    tensors = {f"{PREFIX}input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
    save_file(tensors, path)


def a_text(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>log in first</html>")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def a_pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def cut_in_the_data(path: Path) -> None:
    save_file(dev(), path)
    os.truncate(path, path.stat().st_size // 2)


def cut_in_the_head(path: Path) -> None:
    save_file(dev(), path)
    os.truncate(path, 3000)


def one_part_of_two(path: Path) -> None:
    save_file({name: t for name, t in dev().items() if "single_blocks" not in name}, path)


def scaled_by_blocks(path: Path) -> None:
    """With a scale for each 32 columns, as some formats have: ComfyUI loads it and cannot draw."""
    state = scaled(dev())
    for name, scale in list(state.items()):
        if name.endswith(".weight_scale"):
            rows, columns = state[name.removesuffix("_scale")].shape
            state[name] = scale.expand(rows, columns // 32).clone()
    save_file(state, path, metadata_of(state))


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "SDXL": (sdxl, r"does not hold a FLUX\.1 model \(it holds Stable Diffusion or SDXL\)"),
    "a web page": (a_text, "it is a web page, not a safetensors file"),
    "empty": (nothing, "it is only 0 bytes long"),
    "a pickle": (a_pickle, "it is a zip archive, as PyTorch's .pt and .ckpt pickles are"),
    "cut in the data": (cut_in_the_data, "its tensors need [0-9]+ bytes of data and the file has"),
    "cut in the head": (cut_in_the_head, "its head claims [0-9]+ bytes and the file has only"),
    "scales for blocks": (
        scaled_by_blocks,
        r"double_blocks\.0\.img_attn\.proj\.weight_scale is F32 \[[0-9]+, [0-9]+\]; ComfyUI knows",
    ),
    "a part": (one_part_of_two, r"it lacks single_blocks\.0\.linear1\.bias and"),
}


@pytest.mark.parametrize("go_fast", [True, False], ids=["go_fast", "bf16"])
@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=list(BAD))
def test_a_bad_file_is_refused_in_words(
    site: Site, fast: Tensor, make: Callable[[Path], None], words: str, go_fast: bool
) -> None:
    path = site.models / f"bad-{make.__name__}.safetensors"
    make(path)
    with pytest.raises(ExecutionError, match=words) as refused:
        site.draw(path.name, go_fast=go_fast)
    assert refused.value.node_type == "FluxHotswapLoader"
    assert refused.value.exception_type.endswith("CheckpointError")
    assert path.name in refused.value.message
    path.unlink()
    if go_fast:
        assert torch.equal(site.draw(), fast), "the server goes on"


@pytest.mark.parametrize("odd", [math.nan, math.inf], ids=str)
def test_a_file_with_nan_is_refused_and_not_kept(site: Site, fast: Tensor, odd: float) -> None:
    state = dev()
    state["single_blocks.1.linear2.weight"][7, 7] = odd
    name = put(site, "diffusion_models/odd.safetensors", state)
    words = r"odd\.safetensors is damaged: single_blocks\.1\.linear2\.weight holds NaN"
    with pytest.raises(ExecutionError, match=words):
        site.draw(name)
    assert not list(site.kept_folder.glob("odd-*"))
    assert not list(site.kept_folder.glob("*.part"))
    assert torch.equal(site.draw(), fast), "the server goes on"


def test_a_file_that_was_mended_is_taken(site: Site, fast: Tensor) -> None:
    """The same name, whole by now."""
    path = site.models / "mended.safetensors"
    cut_in_the_data(path)
    with pytest.raises(ExecutionError):
        site.draw(path.name)
    path.write_bytes((site.models / DEV).read_bytes())
    assert torch.equal(site.draw(path.name), fast)
    assert REQUEST["model"] == "dev"
