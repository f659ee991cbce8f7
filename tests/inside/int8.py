"""Models in int8 inside ComfyUI's model management: LoRAs, patches, clones, offloading, compile."""

from __future__ import annotations

import json
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
"""int8 (multiplied as such) or storage"""


@pytest.fixture(params=["int8", "storage"])
def route(request: pytest.FixtureRequest, comfy: Any, monkeypatch: pytest.MonkeyPatch) -> Route:
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
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
    return {name: bytes_of(value).clone() for name, value in patcher.model.named_parameters()}


def bytes_of(value: Tensor) -> Tensor:
    """What a weight is stored as; ComfyUI's quantised tensors hold it inside."""
    return getattr(value, "_qdata", value).detach().contiguous().view(torch.uint8)


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


def test_the_blocks_are_int8_and_the_rest_is_not(fast: Any) -> None:
    stored = kinds(fast)
    int8 = {name for name, dtype in stored.items() if dtype == torch.int8}
    assert len(int8) == LAYERS - MODULATIONS
    assert all("blocks." in name and "mod" not in name for name in int8)
    rest = {dtype for name, dtype in stored.items() if name not in int8}
    assert rest <= {torch.bfloat16, torch.float32}


def kinds(patcher: Any) -> dict[str, torch.dtype]:
    """In what the weights and biases of a network are stored, by their names; scales apart."""
    stored_dtype = inside.pack("engine.beside").stored_dtype
    parameters = patcher.model.diffusion_model.named_parameters()
    return {name: stored_dtype(value) for name, value in parameters if "_scale" not in name}


def test_modulation_goes_to_int8_on_request(comfy: Any, route: Route, models: Path) -> None:
    patcher, _ = inside.pack("engine.models").load_fast(
        models / "diffusion_models" / DEV, modulation=True
    )
    assert sum(dtype == torch.int8 for dtype in kinds(patcher).values()) == LAYERS


def test_the_int8_matmul_runs(comfy: Any, fast: Any, route: Route, monkeypatch: Any) -> None:
    """Torch's own is what comfy-kitchen multiplies with on the CPU."""
    calls = []
    name = "int8_mm" if hasattr(torch, "int8_mm") else "_int_mm"
    real = getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda *a: calls.append(1) or real(*a))
    run(comfy, fast)
    assert len(calls) == (LAYERS - MODULATIONS if route == "int8" else 0)


def test_the_error_is_a_third_of_the_cores_fp8_at_most(
    comfy: Any, fast: Any, full: Any, models: Path
) -> None:
    import comfy.sd

    wanted = run(comfy, full)
    options = {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True}
    core = comfy.sd.load_diffusion_model(
        str(models / "diffusion_models" / DEV), model_options=options
    )
    assert error(run(comfy, fast), wanted) <= 1 / 3 * error(run(comfy, core), wanted)


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
    place = bytes_of(layer.weight).data_ptr()
    second = run(comfy, with_lora(fast, lora, 1.0))
    assert not torch.equal(first, second)
    assert bytes_of(layer.weight).data_ptr() == place
    assert torch.equal(run(comfy, with_lora(fast, lora, 0.5)), first)


def test_a_clone_that_dies_takes_nothing_from_the_one_that_runs(
    comfy: Any, fast: Any, lora: Path
) -> None:
    running = with_lora(fast, lora, 1.0)
    drawn = run(comfy, running)
    running.clone().detach(unpatch_all=False)  # as ComfyUI does with one that nobody holds
    layer = running.model.diffusion_model.double_blocks[0].img_attn.qkv
    assert len(layer._forward_hooks) == 1
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


def test_a_lora_that_comes_after_compiling_arrives(comfy: Any, route: Route, models: Path,
                                                   lora: Path) -> None:  # fmt: skip
    """And goes again: what was compiled looks at what is attached each time."""
    path = models / "diffusion_models" / DEV
    patcher, _ = inside.pack("engine.models").load(path, "dev", go_fast=True, modulation="bf16")
    adapted = with_lora(patcher, lora, 1.0)
    wanted = [run(comfy, model) for model in (patcher, adapted)]
    network = load(comfy, patcher)
    torch.compiler.reset()
    for block in (network.double_blocks[0], network.single_blocks[0]):  # the others as they are
        block.compile(backend="eager", dynamic=False)
    for model, made in ((patcher, 0), (adapted, 1), (patcher, 0)):
        assert error(run(comfy, model), wanted[made]) < 1e-5
    torch.compiler.reset()


# --- files ---


def test_what_is_kept_is_as_comfyui_reads_it(comfy: Any, fast: Any, models: Path) -> None:
    """Every layer is described as a ComfyUI that knows the format wants it."""
    from safetensors import safe_open

    folder = models / "diffusion_models" / "flux_hotswap_int8"
    # The larger one keeps its modulation layers in bf16.
    kept = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    with safe_open(kept, "pt") as file:
        layers = json.loads(file.metadata()["_quantization_metadata"])["layers"]
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    assert len(layers) == LAYERS - MODULATIONS
    for layer, told in layers.items():
        rows, width = tensors[f"{layer}.weight"].get_shape()
        assert tensors[f"{layer}.weight"].get_dtype() == "I8"
        assert tensors[f"{layer}.weight_scale"].get_shape() == [rows, 1]
        assert told["format"] == "int8_tensorwise" and told["convrot"] is True
        assert width % told["convrot_groupsize"] == 0
    assert not any(name.endswith("comfy_quant") for name in tensors)


def test_a_core_that_knows_the_format_opens_it(comfy: Any, full: Any, models: Path) -> None:
    loading = inside.pack("engine.models")
    if not loading.core_knows_int8():
        pytest.skip("waits for a ComfyUI that knows int8_tensorwise")
    import comfy.sd

    fast, _ = loading.load_fast(models / "diffusion_models" / DEV, modulation=False)
    folder = models / "diffusion_models" / "flux_hotswap_int8"
    kept = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    made = run(comfy, comfy.sd.load_diffusion_model(str(kept)))
    wanted = run(comfy, full)
    assert error(made, wanted) < 1.5 * error(run(comfy, fast), wanted)
