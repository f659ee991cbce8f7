"""The networks of the training are those that ComfyUI and diffusers run."""

from __future__ import annotations

import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mini_flux import loras, trained
from mini_flux.learn import batches, flux, optimizer, pack, paint, text, vae, world
from mini_flux.learn.__main__ import used_tokens
from mini_flux.load_diffusers import load_clip, load_t5, load_transformer
from mini_flux.loras import FAMILIES, Delta, Part
from runtime.models import trained_models
from safetensors.torch import load, load_file
from torch import Tensor

from flux_hotswap.prediction.sizes import PRESETS

PROMPT = "a large red star on a dotted blue ground"


def flux_of(name: str) -> flux.Flux:
    model = flux.Flux(guidance=name == "dev")
    state = load_file(trained_models() / "diffusion_models" / f"flux1-{name}.safetensors")
    model.load_state_dict({key: value.float() for key, value in state.items()})
    return model.eval()


def t5_with_all_padding(tokens: list[int], total: int) -> Tensor:
    """What transformers' T5 makes of padded tokens: [1,total,width]."""
    padded = torch.tensor([tokens + [0] * (total - len(tokens))])
    return load_t5(trained_models())(input_ids=padded).last_hidden_state


@pytest.mark.parametrize("name", ["dev", "schnell"])
@torch.no_grad()
def test_the_transformer_is_that_of_diffusers(name: str) -> None:
    ours = flux_of(name)
    theirs = load_transformer("dev" if name == "dev" else "schnell", trained_models())
    generator = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    cells = paint.all_cells(128, 64)
    count = len(cells)
    img, txt, vec = random_tensor(1, count, 64), random_tensor(1, 12, 32), random_tensor(1, 16)
    sigma, guidance = torch.tensor([0.7]), torch.tensor([3.0]) if name == "dev" else None
    ids = torch.zeros(12 + count, 3)
    ids[12:, 1:] = cells
    made, *_ = ours(
        img, txt, vec, sigma, guidance, flux.turns(ids[None]), torch.zeros(1, 12 + count)
    )
    wanted = theirs(
        hidden_states=img,
        encoder_hidden_states=txt,
        pooled_projections=vec,
        timestep=sigma,
        guidance=guidance,
        img_ids=ids[12:],
        txt_ids=ids[:12],
    ).sample
    assert wanted.abs().max() > 0.1
    assert (made - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("total", [256, 512])
@torch.no_grad()
def test_few_tokens_of_padding_stand_for_all(tokenizers: text.Tokenizers, total: int) -> None:
    tokens = tokenizers.one(PROMPT)[1]
    wanted = t5_with_all_padding(tokens, total)[0]
    t5 = text.T5()
    state = load_file(trained_models() / "text_encoders" / "t5xxl_fp16.safetensors")
    t5.from_file({name: value.float() for name, value in state.items()})
    stands_for = text.weights(total)
    made = t5(tokenizers([PROMPT]).t5, stands_for[None])[0]
    there = text.POSITIONS.lt(total)
    away = (made[there] - wanted[text.POSITIONS[there]]).norm(dim=-1) / wanted.norm(dim=-1).mean()
    assert away[: len(tokens)].max() < 0.03
    # One that stands for many sees them all where it is itself, and they are further off.
    few = stands_for[there].exp() < 40
    assert away[few].max() < 0.05
    assert away[~few].max() < 0.15


@torch.no_grad()
def test_clip_pools_at_the_first_end(tokenizers: text.Tokenizers) -> None:
    clip = load_clip(trained_models())
    tokens = tokenizers.one(PROMPT)[0]
    padded = torch.tensor([tokens + [text.CLIP_END] * (77 - len(tokens))])
    whole, short = (clip(input_ids=one).pooler_output for one in (padded, padded[:, : len(tokens)]))
    assert (whole - short).abs().max() < 1e-5


def test_every_word_of_a_prompt_is_in_the_files(tokenizers: text.Tokenizers) -> None:
    clip, t5 = used_tokens(tokenizers)
    dice = random.Random(4)
    for _ in range(1500):
        scene = world.any_scene(dice)
        for prompt in (
            scene.prompt,
            *(world.in_style(scene, style).prompt for style in world.STYLES),
        ):
            ours = tokenizers.one(prompt)
            assert set(ours[0]) <= clip
            assert set(ours[1]) <= t5


@torch.no_grad()
def test_some_cells_stand_for_all() -> None:
    """Attention over a part of the picture, each cell counted for more, is the same on average."""
    generator = torch.Generator().manual_seed(1)
    length, half = 256, 128
    query, key, value = (torch.randn(1, length, 128, generator=generator) * 0.3 for _ in range(3))
    turn = flux.turns(torch.zeros(1, length, 3))
    all_of_it = flux.attend(query, key, value, turn, torch.zeros(1, length))[:, :8]
    parts = []
    for _ in range(200):
        rest = 8 + torch.randperm(length - 8, generator=generator)[: half - 8]
        kept = torch.cat([torch.arange(8), rest])
        bias = torch.zeros(1, half)
        bias[:, 8:] = torch.tensor((length - 8) / (half - 8)).log()
        q, k, v = (one[:, kept] for one in (query, key, value))
        parts.append(flux.attend(q, k, v, turn[:, :half], bias)[:, :8])
    assert (torch.cat(parts).mean(dim=0) - all_of_it[0]).abs().max() < 0.02


@torch.no_grad()
def test_the_vae_keeps_a_picture() -> None:
    state = load_file(trained_models() / "vae" / "ae.safetensors")
    net = vae.decoder()
    decoder = {
        name.removeprefix("taesd_decoder."): value.float()
        for name, value in state.items()
        if name.startswith("taesd_decoder.")
    }
    net.load_state_dict(decoder)
    encoder = vae.from_file(state)
    dice = random.Random(6)
    errors = []
    for _ in range(8):
        cells = (
            paint.picture(world.any_scene(dice), 256, 256).view(16, 16, 16, 16, 3).transpose(1, 2)
        )
        latents = vae.unpack(vae.encode(cells, encoder).flatten(0, 1)[None], 16, 16)
        errors.append(((net(latents) - vae.as_picture(cells[None])) ** 2).mean())
    assert -10 * torch.stack(errors).mean().log10() > 28


def test_the_encoder_as_a_network_is_the_linear_one() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(16, 192, generator=generator), torch.randn(16, generator=generator)
    state = vae.as_file((weight, bias), {})
    kept_weight, kept_bias = vae.from_file(state)
    assert torch.equal(kept_weight, weight)
    assert torch.equal(kept_bias, bias)


def test_momentum_is_made_orthogonal() -> None:
    generator = torch.Generator().manual_seed(3)
    for shape in ((2, 128, 384), (2, 384, 128), (1, 64, 128)):
        made = optimizer.polar(torch.randn(shape, generator=generator))
        assert made.shape == shape
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_muon_finds_a_minimum() -> None:
    torch.manual_seed(0)
    layer, wanted = torch.nn.Linear(16, 8, bias=False), torch.randn(8, 16)
    muon = optimizer.Muon(layer.parameters(), lr=0.02)
    for _ in range(400):
        ((layer.weight - wanted) ** 2).sum().backward()
        muon.step()
        muon.zero_grad()
    assert (layer.weight - wanted).abs().max() < 0.2


def trained_delta(style: str) -> Delta:
    """A trained LoRA by the published names of the modules, its query, key and value apart."""
    state = load(trained.read(style))
    names = {name.rpartition(".lora_")[0] for name in state}
    return {
        name: Part(state[f"{name}.lora_A.weight"].float(), state[f"{name}.lora_B.weight"].float())
        for name in names
    }


@pytest.mark.parametrize("style", world.STYLES)
def test_a_lora_is_in_the_family_of_diffusers(style: str) -> None:
    delta = trained_delta(style)
    assert delta
    assert all(name.startswith("transformer.") for name in delta)
    theirs = load_transformer("dev", trained_models())
    modules = {f"transformer.{name}" for name, _ in theirs.named_modules()}
    assert set(delta) <= modules


@pytest.mark.parametrize("family", FAMILIES)
def test_any_width_and_rank_can_be_spelled(family: str) -> None:
    """The spellings of the other LoRA tests do for a LoRA of another width and rank."""
    generator = torch.Generator().manual_seed(4)
    width, rank = flux.HIDDEN, 8
    delta = {
        "single_blocks.0.linear1": Part(
            torch.randn(rank, width, generator=generator),
            torch.randn(7 * width, rank, generator=generator),
        )
    }
    spell: Callable[[Delta], dict[str, Tensor]] = FAMILIES[family]
    state = loras.as_bytes(spell(delta))
    rows = sum(len(value) for name, value in load(state).items() if "_up" in name or "_B" in name)
    assert rows == 7 * width


def test_what_is_in_the_repository_is_small() -> None:
    packed = sum(path.stat().st_size for path in trained.PACKED.iterdir())
    assert packed <= 12e6


def test_files_unpack_whole(tmp_path: Path) -> None:
    trained.unpack(tmp_path)
    assert trained.are_unpacked(tmp_path)
    place = trained.place(tmp_path, "sticker")
    assert load_file(place).keys() == load(trained.read("sticker")).keys()
    place.unlink()
    assert not trained.are_unpacked(tmp_path)


def test_a_packed_file_holds_bf16(tmp_path: Path) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(7))
    size = pack.write({"weight": weight}, tmp_path / "new" / "a.safetensors.xz")
    data = (tmp_path / "new" / "a.safetensors.xz").read_bytes()
    assert len(data) == size < weight.numel() * 2
    assert torch.equal(load(lzma.decompress(data))["weight"], weight.to(torch.bfloat16))


def test_guidance_decides_how_often_the_prompt_is_obeyed(tokenizers: text.Tokenizers) -> None:
    """A batch pairs prompts with other pictures where guidance is low, and only there."""
    encoder = vae.fit_encoder(
        vae.patches(vae.blocks_of_cells(random.Random(0), 40, 2)).reshape(-1, 192)
    )
    seen: list[world.Scene] = []

    def scene(dice: random.Random) -> world.Scene:
        seen.append(world.training_scene(dice))
        return seen[-1]

    parts = batches.Parts(200, 8, 0)
    batch = batches.make(random.Random(5), scene, (tokenizers, encoder), parts)
    low = int((batch.guidance < batches.OBEYED).sum())
    other = len(seen) - 200
    assert 0 < other < low


@pytest.mark.parametrize("square", [1.0, 0.5, 0.0])
def test_the_longer_a_size_the_more_often_it_is_drawn(square: float) -> None:
    dice = random.Random(8)
    drawn = Counter(batches.any_size(dice, 400, square) for _ in range(4000))
    lone = 0.06 * (1 - square)  # the square is one of the eleven sizes as well, the shortest
    assert drawn[512, 512] / 4000 == pytest.approx(square + lone, abs=0.03)
    if square < 1:
        assert len(drawn) == len(PRESETS)
        assert drawn[768, 320] > 1.5 * drawn[576, 448] > 0
    assert (256, 256) not in drawn
    few = Counter(batches.any_size(dice, 128, square) for _ in range(4000))
    assert few[256, 256] / 4000 == pytest.approx(0.12, abs=0.03)


def test_cells_are_asked_at_edges_and_seen_by_none(tokenizers: text.Tokenizers) -> None:
    encoder = torch.ones(16, 192), torch.zeros(16)
    parts = batches.Parts(40, 128, 26)
    batch = batches.make(random.Random(6), world.training_scene, (tokenizers, encoder), parts)
    words = len(text.POSITIONS)
    places = batch.turn[:, words:].flatten(2)
    for one in places:
        assert len(one.unique(dim=0)) == parts.seen + parts.asked, "no cell is there twice"
    at_edge = batch.painted.outline.abs() < batches.EDGE_REACH + 2
    assert at_edge[:, parts.seen :].float().mean() > 0.95
    assert at_edge[:, : parts.seen].float().mean() < 0.3
    assert (batch.bias[:, words + parts.seen :] == batches.UNSEEN).all()
    assert (batch.bias[:, words : words + parts.seen] > 0).all()
    assert batch.weight.mean(dim=1).numpy() == pytest.approx(1 + batches.EDGE_WEIGHT)


@torch.no_grad()
def test_what_is_asked_changes_nothing_that_is_seen(tokenizers: text.Tokenizers) -> None:
    torch.manual_seed(8)
    encoder = torch.randn(16, 192), torch.zeros(16)
    model = flux.Flux(guidance=True)
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.1)
    parts = batches.Parts(2, 32, 8)
    batch = batches.make(random.Random(7), world.training_scene, (tokenizers, encoder), parts)
    txt, vec = torch.randn(2, len(text.POSITIONS), text.T5_WIDTH), torch.randn(2, 16)

    def drawn(latents: Tensor) -> Tensor:
        rest = (batch.guidance, batch.turn, batch.bias)
        return model(latents, txt, vec, torch.tensor([0.8, 0.3]), *rest)[0]

    other = batch.latents.clone()
    other[:, parts.seen :] += 1
    before, after = drawn(batch.latents), drawn(other)
    assert torch.equal(before[:, : parts.seen], after[:, : parts.seen])
    assert (before - after)[:, parts.seen :].abs().max() > 0.1
