"""Weights that are a file or are left in main memory, dynamic memory, clones on other cards."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hosted_files import write_hosted
from mini_flux import loras, shapes
from runtime import inside
from runtime.lora_states import DEV, NATIVE, QKV, State, drawn
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

H = shapes.HIDDEN
ENGINES = ("int8", "storage", "fp8", "bf16", HOSTED_FILE := "a file in fp8")

Load = Callable[[], tuple[Any, Any]]

HOOKED: State = {
    f"{NATIVE}.diff": drawn(H, H),
    f"{NATIVE}.diff_b": drawn(H),
    f"diffusion_model.{QKV}.diff_b": drawn(3 * H),
    "diffusion_model.img_in.diff_b": drawn(H),
    "diffusion_model.single_blocks.0.modulation.lin.diff": drawn(3 * H, H),
}
"""Changes of weights and of biases, in layers in 8 bit and in others."""


@pytest.fixture(params=ENGINES)
def load(request: pytest.FixtureRequest, comfy: Any, models: Path, monkeypatch: Any) -> Load:
    """Loads the small model on one of the engines, as the Loader does."""
    path = models / "diffusion_models" / DEV
    if request.param == HOSTED_FILE:  # in the hosted model's format: its weights are mapped too
        path = models / "diffusion_models" / "dev-fp8.safetensors"
        state = load_file(models / "diffusion_models" / DEV)
        linear = inside.pack("ops.checkpoint.layout").is_block_linear
        names = [name.removesuffix(".weight") for name in state if linear(name)]
        write_hosted(state, dict.fromkeys(names, 500.0), path)
    else:
        monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
    return lambda: inside.pack("engine.models").load(path, "dev", go_fast=True, modulation="bf16")


@pytest.fixture
def lora(models: Path) -> Path:
    path = models / "loras" / "memory.safetensors"
    loras.write(loras.diffusers(loras.blocks(seed=3)), path)
    return path


def with_lora(model: Any, lora: Path) -> Any:
    return inside.pack("engine.loras").apply(lora, model, None, 1.0)[0]


def draw(model: Any, hooked: State | None = None) -> Tensor:
    """Two steps by ComfyUI's sampler, with a hook LoRA if one is given."""
    import comfy.hooks
    import comfy.samplers

    generator = torch.Generator().manual_seed(5)
    text = torch.randn(1, 64, shapes.T5_WIDTH, generator=generator)
    pooled = torch.randn(1, shapes.CLIP_WIDTH, generator=generator)
    noise = torch.randn(1, 16, 16, 16, generator=generator)
    conds: Any = [[text, {"pooled_output": pooled, "guidance": 3.5}]]
    if hooked is not None:
        group = comfy.hooks.create_hook_lora(hooked, strength_model=1.0, strength_clip=0.0)
        conds = comfy.hooks.set_hooks_for_conditioning(conds, group)
    guider: Any = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": conds})
    euler, levels = comfy.samplers.sampler_object("euler"), torch.tensor([1.0, 0.6, 0.0])
    return guider.sample(noise, torch.zeros_like(noise), euler, levels, disable_pbar=True, seed=1)


def all_pictures(load: Load, lora: Path) -> dict[str, Tensor]:
    """What one model draws in turn."""
    import comfy.sd

    model = load()[0]
    adapted = with_lora(model, lora)
    cores = comfy.sd.load_lora_for_models(model, None, load_file(lora), 1.0, 0.0)[0]
    return {
        "plain": draw(model),
        "LoRA": draw(adapted),
        "LoRA of the core's": draw(cores),
        "hook LoRA": draw(model, HOOKED),
        "both": draw(adapted, HOOKED),
        "plain again": draw(model),
    }


# --- weights that must not be written to ---


@pytest.fixture
def dynamic(comfy: Any) -> Any:
    """The plug-in that makes this ComfyUI behave as one with dynamic memory."""
    import comfy.model_patcher

    if hasattr(comfy.model_patcher.ModelPatcher, "is_dynamic"):
        pytest.skip("this ComfyUI has dynamic memory of its own")
    return inside.plugin("dynamic_memory")


def test_a_write_into_what_is_loaded_ends_the_process(dynamic: Any, models: Path) -> None:
    """Without which the next test would show nothing."""
    state = dynamic.load_torch_file(str(models / "diffusion_models" / DEV))
    if (child := os.fork()) == 0:
        faulthandler.disable()
        state[f"{QKV}.bias"].add_(1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) in (signal.SIGSEGV, signal.SIGBUS)


def test_pictures_are_the_same_and_no_weight_is_written_to(
    dynamic: Any, load: Load, lora: Path
) -> None:
    wanted = all_pictures(load, lora)
    assert torch.equal(wanted["plain"], wanted["plain again"])
    assert len({name for name in wanted if torch.equal(wanted[name], wanted["plain"])}) == 2
    with dynamic.installed():
        made = all_pictures(load, lora)
    for name, picture in made.items():
        assert torch.equal(picture, wanted[name]), name


def test_the_loader_says_so_when_memory_is_managed_in_a_new_way(
    load: Load, monkeypatch: Any, caplog: Any
) -> None:
    """That is, where its own layers are in a model that is dynamic all the same."""
    import comfy.model_patcher

    assert "moves its weights" not in load()[1].reason
    assert not caplog.messages
    patcher = comfy.model_patcher.ModelPatcher
    monkeypatch.setattr(patcher, "is_dynamic", lambda _: True, raising=False)
    model, route = load()
    layers = inside.pack("engine.stored_linear").StoredLinear
    ours = any(isinstance(module, layers) for module in model.model.modules())
    assert ("moves its weights in a way that is new to this pack" in route.reason) == ours
    assert any("--disable-dynamic-vram" in text for text in caplog.messages) == ours


# --- layers that are left in main memory ---


class Moves(TorchDispatchMode):
    """Notes the numbers that move to another device, and whether that is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        made = func(*args, **given)
        if func is torch.ops.aten._to_copy.default and made.device != args[0].device:
            self.seen.append((made.numel(), not given.get("non_blocking")))
        return made


def layer_of(engine: str) -> tuple[Any, torch.dtype]:
    """A layer of 32 to 64 channels, its scales in main memory, and what its weight is stored in."""
    if engine == "storage":
        layer = inside.pack("engine.int8_linear").int8_operations(None).Linear(32, 64, bias=False)
        layer.take("weight_scale", torch.ones(64, 1))
        return layer, torch.int8
    plain = inside.pack("ops.hosted.primitives").PLAIN
    layer = inside.pack("engine.hosted_linear").hosted_operations(plain).Linear(32, 64, bias=False)
    for name in ("scale", "scale_reciprocal", "input_scale"):
        layer.take(name, torch.ones(()))
    return layer, torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("engine", "moved"), [("storage", [64]), ("fp8", [1, 1])], ids=["storage", "fp8"]
)
def test_the_card_is_not_waited_for_when_scales_come_over(
    comfy: Any, engine: str, moved: list[int]
) -> None:
    """And only those come that are computed with. The card is torch's device without numbers."""
    with torch.inference_mode(False), torch.no_grad():
        layer, stored = layer_of(engine)
        weight = torch.empty(64, 32, dtype=stored, device="meta")
        inputs = torch.empty(20, 32, dtype=torch.bfloat16, device="meta")
        layer.multiply(inputs, weight, None)  # makes what is kept, such as the Hadamard matrix
        with Moves() as moves:
            layer.multiply(inputs, weight, None)
    assert moves.seen == [(count, False) for count in moved]


# --- clones on other cards ---


@pytest.fixture
def model(comfy: Any, load: Load) -> Iterator[Any]:
    """A model that this ComfyUI makes such clones of, or the plug-in does in its place."""
    import comfy.model_patcher

    own = hasattr(comfy.model_patcher.ModelPatcher, "deepclone_multigpu")
    with nullcontext() if own else inside.plugin("several_cards").installed():
        yield load()[0]


def spoil(model: Any) -> None:
    """Change some biases, so that it is seen whose layers compute."""
    for name in (QKV, "single_blocks.0.linear2", "final_layer.linear"):
        layer = model.model.diffusion_model.get_submodule(name)
        layer.bias = torch.nn.Parameter(layer.bias + 1, requires_grad=False)


def test_a_clone_on_another_card_computes_with_weights_of_its_own(model: Any, lora: Path) -> None:
    """Both are on the CPU here; the clone is made as for another card."""
    adapted = with_lora(model, lora)
    plain, wanted = draw(model), draw(adapted)
    assert not torch.equal(plain, wanted)
    clone = adapted.deepclone_multigpu(new_load_device=torch.device("cpu"))
    adapted.set_additional_models("multigpu", [clone])
    adapted.match_multigpu_clones()
    (matched,) = adapted.get_additional_models_with_key("multigpu")
    adapted.remove_additional_models("multigpu")
    spoil(model)
    assert not torch.equal(draw(adapted), wanted)
    assert torch.equal(draw(clone), wanted)
    assert torch.equal(draw(matched), wanted)


def test_merged_weights_are_not_shared_with_a_clone(model: Any, lora: Path) -> None:
    """ComfyUI would move them to the card of the model that is loaded last."""
    adapted = with_lora(model, lora)
    clone = adapted.deepclone_multigpu(new_load_device=torch.device("cpu"))
    merged = {n: v for n, v in adapted.object_patches.items() if isinstance(v, torch.nn.Parameter)}
    assert bool(merged) == inside.pack("engine.loras").merges(model)
    for name, value in merged.items():
        assert clone.object_patches[name] is not value
        assert torch.equal(clone.object_patches[name].float(), value.float())


def test_a_clone_has_the_scales_that_were_found(model: Any) -> None:
    layers = inside.pack("engine.hosted").hosted_layers
    for count, layer in enumerate(layers(model.model).values()):
        layer.take("input_scale", torch.tensor(1000.0 + count))
    clone = model.deepclone_multigpu(new_load_device=torch.device("cpu"))
    found = [float(layer.input_scale) for layer in layers(clone.model).values()]
    assert found == [1000.0 + count for count in range(len(found))]


def test_it_can_be_loaded_without_dynamic_memory(model: Any) -> None:
    """As ComfyUI does for hook LoRAs."""
    again, given = model.cached_patcher_init
    whole = again(*given, disable_dynamic=True)
    assert whole.model is not model.model
    assert torch.equal(draw(whole), draw(model))
