"""What a model that computes in bf16 is told of the noise level, as the hosted engines tell it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hosted_vectors import SAID, sha
from mini_flux import trained
from runtime import inside
from torch import Tensor

LEVELS = [value for value in SAID["embedding"] if 0 < float(value) <= 1]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("told") / "dev.safetensors"
    path.write_bytes(trained.read("flux1-dev"))
    return path


def bf16(model: Any) -> Any:
    """The model as it computes on a card that knows bf16."""
    made = model.clone()
    made.set_model_compute_dtype(torch.bfloat16)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """A latent [1,16,16,16], T5's states [1,32,32] and CLIP's [1,16]."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((1, 16, 16, 16), (1, 32, 32), (1, 16))
    latent, text, pooled = (torch.randn(shape, generator=generator) for shape in shapes)
    return latent, text, pooled


def predicted(comfy: Any, model: Any, sigma: float) -> tuple[Tensor, Tensor]:
    """What the model is told, [1,256], and the denoised latent."""
    heard: list[Tensor] = []
    comfy.model_management.load_models_gpu([model])
    network = model.model.diffusion_model
    hook = network.time_in.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    latent, text, pooled = inputs()
    options = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    try:
        made = model.model.apply_model(
            latent,
            torch.tensor([sigma]),
            c_crossattn=text,
            y=pooled,
            guidance=torch.tensor([3.5]),
            transformer_options=options,
        )
    finally:
        hook.remove()
    return heard[0], made


def loaded(file: Path, **options: Any) -> Any:
    settings = {"go_fast": False, "modulation": "bf16", **options}
    return inside.pack("engine.models").load(file, "dev", **settings)[0]


@pytest.mark.parametrize("sigma", LEVELS)
def test_in_bf16_it_is_told_as_on_the_hosted_model(comfy: Any, file: Path, sigma: str) -> None:
    told, _ = predicted(comfy, bf16(loaded(file)), float(sigma))
    assert sha(told) == SAID["embedding"][sigma][1]


def test_on_the_fast_route_too(comfy: Any, file: Path) -> None:
    model = bf16(loaded(file, go_fast=True))
    assert sha(predicted(comfy, model, 0.10372)[0]) == SAID["embedding"]["0.10372"][1]


def test_in_float32_nothing_is_rounded(comfy: Any, file: Path) -> None:
    told, _ = predicted(comfy, loaded(file), 0.10372)
    waves = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
    assert torch.allclose(told[0, :128], torch.cos(103.72 * waves), atol=1e-4)
    assert float(SAID["embedding"]["0.10372"][0]) == 103.5


def test_comfyui_alone_tells_another_level(comfy: Any, file: Path) -> None:
    """So that the tests above can fail."""
    model = bf16(inside.pack("engine.models").load_flux(file))
    assert sha(predicted(comfy, model, 0.10372)[0]) != SAID["embedding"]["0.10372"][1]


def diffusers_bf16(sigma: float) -> Tensor:
    """The denoised latent by diffusers' transformer in bf16, told the level rounded to bf16."""
    from mini_flux.load_diffusers import load_transformer
    from runtime.models import trained_models

    transformer = load_transformer("dev", trained_models()).bfloat16()
    x, text, pooled = inputs()
    patches = x.unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).permute(0, 2, 4, 1, 3, 5)
    grid = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    made = transformer(
        hidden_states=patches.reshape(1, 64, 64).to(torch.bfloat16),
        encoder_hidden_states=text.to(torch.bfloat16),
        pooled_projections=pooled.to(torch.bfloat16),
        timestep=torch.tensor([sigma], dtype=torch.bfloat16),
        guidance=torch.tensor([3.5], dtype=torch.bfloat16),
        img_ids=torch.nn.functional.pad(grid, (1, 0)).to(torch.bfloat16),
        txt_ids=torch.zeros(text.shape[1], 3, dtype=torch.bfloat16),
        return_dict=False,
    )[0]
    whole = made.reshape(1, 8, 8, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    return x - sigma * whole.to(torch.float32)


def test_diffusers_in_bf16_agrees_more_than_with_comfyuis_level(comfy: Any, file: Path) -> None:
    """Where levels are between the numbers of bf16; other roundings of bf16 differ anyway."""
    models = inside.pack("engine.models")
    apart: dict[str, float] = {"ours": 0.0, "ComfyUI's": 0.0}
    for sigma in (0.10372, 0.2137, 0.3377, 0.4289, 0.5671):
        theirs = diffusers_bf16(sigma)
        for name, model in (("ours", loaded(file)), ("ComfyUI's", models.load_flux(file))):
            _, made = predicted(comfy, bf16(model), sigma)
            apart[name] += float((made - theirs).norm() / sigma)
    assert apart["ours"] < 0.9 * apart["ComfyUI's"], apart


# --- what ComfyUI makes of a number in bf16, and of places ---


def embedded(values: Tensor) -> Tensor:
    """What ComfyUI's model is told of numbers in bf16, [B,256]."""
    from comfy.ldm.flux.layers import timestep_embedding

    return timestep_embedding(values.to(torch.bfloat16), 256)


def written_out(told: list[float]) -> Tensor:
    """The same of numbers that are told already, times 1000."""
    waves = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
    angles = torch.tensor(told)[:, None] * waves
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1).to(torch.bfloat16)


@pytest.mark.parametrize("case", SAID["timesteps"])
def test_noise_levels_told(comfy: Any, case: str) -> None:
    sigmas, rounded, told = SAID["timesteps"][case]
    assert torch.tensor(sigmas).to(torch.bfloat16).tolist() == rounded
    assert torch.equal(embedded(torch.tensor(sigmas)), written_out(told))


@pytest.mark.parametrize("guidance", SAID["guidance_told"])
def test_guidance_told(comfy: Any, guidance: str) -> None:
    told = SAID["guidance_told"][guidance]
    assert torch.equal(embedded(torch.tensor([float(guidance)])), written_out([told]))


@pytest.mark.parametrize("value", SAID["embedding"])
def test_embeddings(comfy: Any, value: str) -> None:
    told, digest = SAID["embedding"][value]
    assert sha(embedded(torch.tensor([float(value)]))) == digest == sha(written_out([told]))


@pytest.mark.parametrize("size", [name for name in SAID["rope"] if name != "block"])
def test_rope(comfy: Any, size: str) -> None:
    from comfy.ldm.flux.layers import EmbedND

    sides, name = size.split()
    height, width = (int(side) // 16 for side in sides.split("x"))
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    text = torch.zeros({"dev": 512, "schnell": 256}[name], 3)
    places = torch.cat((text, torch.nn.functional.pad(grid, (1, 0)).to(torch.float32)))
    table = EmbedND(dim=128, theta=10000, axes_dim=[16, 56, 56])(places[None])
    assert sha(table.to(torch.bfloat16)) == SAID["rope"][size]
