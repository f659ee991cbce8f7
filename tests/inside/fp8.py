"""Models in fp8 inside ComfyUI's model management: LoRAs, patches, clones, offloading, compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, shapes
from runtime import inside
from torch import Tensor

DEV = "flux1-dev.safetensors"
LAYERS = 10 * shapes.DOUBLE_BLOCKS + 3 * shapes.SINGLE_BLOCKS
MODULATIONS = 2 * shapes.DOUBLE_BLOCKS + shapes.SINGLE_BLOCKS

Route = str
"""matmul or storage"""


@pytest.fixture(params=["matmul", "storage"])
def route(request: pytest.FixtureRequest, comfy: Any, monkeypatch: pytest.MonkeyPatch) -> Route:
    loader = inside.pack("engine.models")
    if request.param == "storage":
        monkeypatch.setattr(loader, "fastest", lambda: (None, "storage (asked for)"))
    return request.param


@pytest.fixture
def fast(route: Route, models: Path) -> Any:
    patcher, _ = inside.pack("engine.models").load_fast(
        models / "diffusion_models" / DEV, modulation=False
    )
    return patcher


@pytest.fixture
def full(comfy: Any, models: Path) -> Any:
    return inside.pack("engine.models").load_flux(models / "diffusion_models" / DEV)


class Inputs:
    """What one forward pass of the small dev model gets; loud in some channels of the text."""

    def __init__(self, tokens: int = 256) -> None:
        generator = torch.Generator().manual_seed(5)
        side = 2 * int(tokens**0.5)
        self.latent = torch.randn(1, 16, side, side, generator=generator)
        self.text = torch.randn(1, 64, shapes.T5_WIDTH, generator=generator)
        self.text[:, :, 3] *= 20
        self.pooled = torch.randn(1, shapes.CLIP_WIDTH, generator=generator)


INPUTS = Inputs()


def load(comfy: Any, patcher: Any) -> Any:
    comfy.model_management.load_models_gpu([patcher])
    return patcher.model.diffusion_model


def run(comfy: Any, patcher: Any) -> Tensor:
    """One forward pass through ComfyUI's model management."""
    network = load(comfy, patcher)
    times, guidance = torch.tensor([0.7]), torch.tensor([3.5])
    return network(INPUTS.latent, times, INPUTS.text, INPUTS.pooled, guidance).float()


def weights(patcher: Any) -> dict[str, Tensor]:
    """Copies of all weights, as bytes."""
    state = patcher.model.state_dict()
    return {name: tensor.contiguous().view(torch.uint8).clone() for name, tensor in state.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def error(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).norm() / wanted.norm())


@pytest.fixture
def lora(models: Path) -> Path:
    path = models / "loras" / "one.safetensors"
    loras.write(loras.diffusers(loras.blocks(seed=3)), path)
    return path


@pytest.fixture
def other_lora(models: Path) -> Path:
    """One in XLabs' names, which change only the attention's rows of linear1."""
    path = models / "loras" / "two.safetensors"
    loras.write(loras.xlabs(loras.attention(seed=4)), path)
    return path


def with_lora(patcher: Any, path: Path, strength: float) -> Any:
    """What our node makes of a model."""
    return inside.pack("engine.loras").apply(path, patcher, None, strength)[0]


def with_core_lora(comfy: Any, patcher: Any, path: Path, strength: float) -> Any:
    """What the core's LoraLoaderModelOnly makes of it."""
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.load_lora_for_models(patcher, None, state, strength, 0)[0]


# --- what is quantised ---


def test_the_blocks_are_fp8_and_the_rest_is_not(fast: Any) -> None:
    state = fast.model.diffusion_model.state_dict()
    fp8 = {name for name, tensor in state.items() if tensor.dtype == torch.float8_e4m3fn}
    assert len(fp8) == LAYERS - MODULATIONS
    assert all("blocks." in name and "mod" not in name for name in fp8)
    rest = {name: t.dtype for name, t in state.items() if name not in fp8}
    scales = {name for name in rest if name.endswith("weight_scale")}
    assert {name.removesuffix("_scale") for name in scales} == fp8
    assert {dtype for name, dtype in rest.items() if name not in scales} == {torch.bfloat16}


def test_modulation_goes_to_fp8_on_request(comfy: Any, models: Path) -> None:
    patcher, _ = inside.pack("engine.models").load_fast(
        models / "diffusion_models" / DEV, modulation=True
    )
    state = patcher.model.diffusion_model.state_dict()
    assert sum(t.dtype == torch.float8_e4m3fn for t in state.values()) == LAYERS


def test_the_fp8_matmul_runs(comfy: Any, fast: Any, route: Route, monkeypatch: Any) -> None:
    calls = []
    matmul = inside.pack("ops.fp8.matmul")
    real = matmul._scaled_mm
    monkeypatch.setattr(matmul, "_scaled_mm", lambda *a, **k: calls.append(1) or real(*a, **k))
    run(comfy, fast)
    assert len(calls) == (LAYERS - MODULATIONS if route == "matmul" else 0)


def test_the_error_is_two_thirds_of_the_cores_at_most(
    comfy: Any, fast: Any, full: Any, models: Path
) -> None:
    import comfy.sd

    wanted = run(comfy, full)
    options = {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True}
    core = comfy.sd.load_diffusion_model(
        str(models / "diffusion_models" / DEV), model_options=options
    )
    assert error(run(comfy, fast), wanted) <= 2 / 3 * error(run(comfy, core), wanted)


def test_activations_of_ten_thousand_are_no_surprise(
    comfy: Any, fast: Any, full: Any, monkeypatch: Any
) -> None:
    loud = INPUTS.text.clone()
    loud[:, :, 5] = 1e4
    monkeypatch.setattr(INPUTS, "text", loud)
    made, wanted = run(comfy, fast), run(comfy, full)
    assert torch.isfinite(made).all()
    assert error(made, wanted) < 0.2


# --- LoRAs ---


@pytest.mark.parametrize("strength", [-1.0, 0.5, 1.0, 3.0])
def test_a_lora_arrives_whole(
    comfy: Any, fast: Any, full: Any, lora: Path, strength: float
) -> None:
    """As measured at the layers: the network as a whole is not linear."""
    changed = with_lora(fast, lora, strength)
    for name, layer in layers(fast).items():
        before = through(layer)
        load(comfy, changed)
        change = through(layer) - before
        load(comfy, fast)
        wanted = INPUT[: len(change), : layer.in_features] @ delta(full, lora, strength, name).T
        gain = float((change * wanted).sum() / (wanted * wanted).sum())
        noise = float((change - gain * wanted).norm() / wanted.norm())
        assert gain == pytest.approx(1, abs=0.02), name
        assert noise < 0.1, name


INPUT = torch.randn(512, 5 * shapes.HIDDEN, generator=torch.Generator().manual_seed(9))


def layers(patcher: Any) -> dict[str, Any]:
    """One layer of each kind."""
    names = ("double_blocks.0.img_attn.qkv", "double_blocks.1.txt_mlp.2")
    names += ("single_blocks.0.linear1", "single_blocks.1.linear2")
    network = patcher.model.diffusion_model
    return {name: network.get_submodule(name) for name in names}


def through(layer: Any) -> Tensor:
    return layer(INPUT[:, : layer.in_features])


def delta(full: Any, lora: Path, strength: float, name: str) -> Tensor:
    """What the core adds to a weight in float32."""
    import comfy.lora
    import comfy.utils

    key = f"diffusion_model.{name}.weight"
    key_map = comfy.lora.model_lora_keys_unet(full.model, {})
    state = comfy.utils.load_torch_file(str(lora), safe_load=True)
    patched = full.clone()
    patched.add_patches(comfy.lora.load_lora(state, key_map), strength)
    weight = comfy.utils.get_attr(full.model, key).float()
    return comfy.lora.calculate_weight(patched.patches[key], weight.clone(), key) - weight


def test_two_loras_and_the_same_twice_add_up(
    comfy: Any, fast: Any, full: Any, lora: Path, other_lora: Path
) -> None:
    wanted = run(comfy, with_lora(with_lora(full, lora, 0.5), other_lora, -1.0))
    made = run(comfy, with_lora(with_lora(fast, lora, 0.5), other_lora, -1.0))
    plain = error(run(comfy, fast), run(comfy, full))
    assert error(made, wanted) < 1.2 * plain
    twice = run(comfy, with_lora(with_lora(fast, lora, 0.5), lora, 0.5))
    assert error(twice, run(comfy, with_lora(fast, lora, 1.0))) < 0.5 * plain


def test_removing_a_lora_restores_every_bit(
    comfy: Any, fast: Any, lora: Path, other_lora: Path
) -> None:
    before, drawn = weights(fast), run(comfy, fast)
    one = with_lora(fast, lora, 1.0)
    assert not torch.equal(run(comfy, one), drawn)
    assert not torch.equal(run(comfy, with_lora(one, other_lora, 1.0)), drawn)
    assert torch.equal(run(comfy, fast), drawn)
    assert same(weights(fast), before)


def test_another_strength_reloads_nothing(comfy: Any, fast: Any, lora: Path) -> None:
    first = run(comfy, with_lora(fast, lora, 0.5))
    layer = fast.model.diffusion_model.double_blocks[0].img_attn.qkv
    scale = layer.weight_scale.data_ptr()
    second = run(comfy, with_lora(fast, lora, 1.0))
    assert not torch.equal(first, second)
    assert layer.weight_scale.data_ptr() == scale
    assert torch.equal(run(comfy, with_lora(fast, lora, 0.5)), first)


def test_a_clone_that_dies_takes_nothing_from_the_one_that_runs(
    comfy: Any, fast: Any, lora: Path
) -> None:
    running = with_lora(fast, lora, 1.0)
    drawn = run(comfy, running)
    running.clone().detach(unpatch_all=False)  # as ComfyUI does with one that nobody holds
    network = running.model.diffusion_model
    assert network.double_blocks[0].img_attn.qkv.weight.shape[1] > shapes.HIDDEN
    assert torch.equal(run(comfy, running), drawn)


# --- patches of other nodes ---


@pytest.mark.parametrize("strength", [0.05, 1.0])
def test_the_cores_lora_loader_works(
    comfy: Any, fast: Any, full: Any, lora: Path, strength: float
) -> None:
    before, drawn = weights(fast), run(comfy, fast)
    made = run(comfy, with_core_lora(comfy, fast, lora, strength))
    wanted = run(comfy, with_core_lora(comfy, full, lora, strength))
    assert error(made, wanted) < 2 * error(drawn, run(comfy, full))
    assert torch.equal(run(comfy, fast), drawn)
    assert same(weights(fast), before)


def test_both_kinds_of_loras_at_once(
    comfy: Any, fast: Any, full: Any, lora: Path, other_lora: Path
) -> None:
    before = weights(fast)

    def both(model: Any) -> Tensor:
        return run(comfy, with_lora(with_core_lora(comfy, model, lora, 0.5), other_lora, 0.5))

    assert error(both(fast), both(full)) < 2 * error(run(comfy, fast), run(comfy, full))
    run(comfy, fast)
    assert same(weights(fast), before)


def test_low_memory_gives_the_same_picture(comfy: Any, fast: Any, other_lora: Path) -> None:
    for model in (fast, with_lora(fast, other_lora, 1.0)):
        wanted = run(comfy, model)
        assert error(forward_with_low_memory(comfy, model), wanted) < 1e-5


def test_low_memory_and_the_cores_lora(comfy: Any, fast: Any, full: Any, lora: Path) -> None:
    """Layers that ComfyUI leaves where they are get their patches in each run."""
    model = with_core_lora(comfy, fast, lora, 1.0)
    wanted = run(comfy, with_core_lora(comfy, full, lora, 1.0))
    made = forward_with_low_memory(comfy, model)
    assert error(made, wanted) <= 1.1 * error(run(comfy, model), wanted)


def forward_with_low_memory(comfy: Any, model: Any) -> Tensor:
    comfy.model_management.unload_all_models()
    model.partially_load(torch.device("cpu"), extra_memory=1)
    made = forward(model)
    model.detach()
    return made


def forward(patcher: Any) -> Tensor:
    network = patcher.model.diffusion_model
    times, guidance = torch.tensor([0.7]), torch.tensor([3.5])
    return network(INPUTS.latent, times, INPUTS.text, INPUTS.pooled, guidance).float()


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "LoRA"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_layer_compiles_without_a_break(
    comfy: Any, fast: Any, lora: Path, adapted: bool, dtype: torch.dtype
) -> None:
    model = with_lora(fast, lora, 1.0) if adapted else fast
    load(comfy, model)
    for layer in layers(model).values():
        tokens = INPUT[:64, : layer.in_features].to(dtype)
        torch.compiler.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        assert error(compiled(tokens).float(), layer(tokens).float()) < 1e-2


# --- files ---


def test_the_core_opens_what_is_kept(comfy: Any, fast: Any, full: Any, models: Path) -> None:
    import comfy.sd

    folder = models / "diffusion_models" / "flux_hotswap_fp8"
    # The larger one keeps its modulation layers in bf16.
    kept = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    core = comfy.sd.load_diffusion_model(str(kept))
    wanted = run(comfy, full)
    assert error(run(comfy, core), wanted) < 1.2 * error(run(comfy, fast), wanted)
