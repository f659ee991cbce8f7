"""The training: it can be stopped, and its stages fit together."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, trained
from mini_flux.learn import __main__ as command
from mini_flux.learn import (
    batches,
    flux,
    loop,
    pack,
    sample,
    text,
    train_dev,
    train_lora,
    train_mend,
    train_schnell,
    train_vae,
)
from mini_flux.learn.model import Model
from runtime.comfyui import find_comfyui
from safetensors.torch import load
from torch import nn


def stage(steps: int, stop_at: int | None = None) -> tuple[loop.Stage, nn.Linear]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    adam = torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(index: int) -> Mapping[str, float]:
        if index == stop_at:
            raise KeyboardInterrupt
        dice = loop.dice(0, index)
        error = (layer(torch.tensor([[dice.random() for _ in range(4)]])) ** 2).mean()
        error.backward()
        adam.step()
        adam.zero_grad()
        return {"error": error.item()}

    return loop.Stage("tiny", steps, {"layer": layer, "adam": adam}, step), layer


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    whole, wanted = stage(60)
    folder = tmp_path / "stopped"
    for made in (tmp_path / "whole", folder):
        made.mkdir()
    loop.run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        loop.run(stage(60, stop_at=25)[0], folder)
    rest, layer = stage(60)
    loop.run(rest, folder)
    assert torch.equal(layer.weight, wanted.weight)
    curve = [json.loads(line) for line in (folder / "tiny.loss.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 60


def shapes(data: bytes) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in load(data).items()}


@pytest.mark.parametrize(
    ("index", "share"),
    [(0, 0.01), (49, 0.5), (99, 1.0), (500, 1.0), (800, 0.5), (999, 0.0025)],
)
def test_the_pace(index: int, share: float) -> None:
    assert loop.pace(index, 1000) == pytest.approx(share)


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of two small steps."""

    def as_it_is(module: Any, **_: Any) -> Any:
        return module

    def few(*_: Any) -> batches.Parts:
        return batches.Parts(2, 8, 2)

    def no_sheet(*_: Any, **__: Any) -> float:
        return 0.0

    monkeypatch.setattr(torch, "compile", as_it_is)
    monkeypatch.setattr(sample, "sheet", no_sheet)
    for module in (train_mend, train_vae, train_schnell, train_lora):
        monkeypatch.setattr(module, "STEPS", 2)
    for course in ("WHOLE", "FURTHER"):
        monkeypatch.setattr(train_dev, course, replace(getattr(train_dev, course), steps=2))
    for module in (train_dev, train_mend, train_schnell, train_lora):
        monkeypatch.setattr(module, "phase", few)
    monkeypatch.setattr(train_vae, "BATCH", 2)
    # Packing well takes 20 s; another test packs so.
    monkeypatch.setattr(pack, "FILTERS", [{"id": lzma.FILTER_LZMA2, "preset": 0}])


def train(folder: Path, *words: str) -> Path:
    """What the command packs, given these words."""
    output = folder / "trained"
    arguments = [str(find_comfyui().path), str(folder / "work"), "--output", str(output)]
    assert command.main([*arguments, *words]) == 0
    return output


@pytest.mark.usefixtures("miniature")
@pytest.mark.parametrize("more", [[], ["--further"]], ids=["from nothing", "further"])
def test_all_stages_in_miniature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    output = train(tmp_path, *more)
    monkeypatch.setattr(trained, "PACKED", output)
    trained.unpack(tmp_path / "models")
    assert trained.are_unpacked(tmp_path / "models")
    fresh = {name: shapes(trained.read(name)) for name in trained.FILES}
    monkeypatch.undo()
    assert fresh == {name: shapes(trained.read(name)) for name in trained.FILES}
    curves = {path.name for path in output.glob("*.jsonl")}
    assert {"dev.loss.jsonl", "schnell.loss.jsonl", "sticker.loss.jsonl"} <= curves
    assert ("vae.loss.jsonl" in curves) is not more
    log = (output / command.LOG).read_text(encoding="utf-8")
    assert all(f"{name}: 2 steps" in log for name in ("dev", "mend", "schnell", "sticker"))


@pytest.mark.usefixtures("miniature")
@pytest.mark.parametrize(
    ("stage", "file"),
    [("sticker", "sticker"), ("schnell", "flux1-schnell")],
    ids=["lora", "schnell"],
)
def test_one_stage_alone(tmp_path: Path, stage: str, file: str) -> None:
    output = train(tmp_path, stage, "--further", str(trained.PACKED))
    packed = {path.name.partition(".")[0] for path in output.glob("*.xz")}
    assert packed == {file, "ae"}
    made, known = (load(trained.read(file, one)) for one in (output, trained.PACKED))
    # It goes on from what is there: two small steps leave it where it was.
    assert max((made[name] - known[name]).abs().max() for name in known) < 0.02


def test_an_unknown_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, "schnel")
    assert "no stage is called schnel" in capsys.readouterr().err


def dev_that_moves() -> Model:
    """A dev with random weights, the last layer's too, which begin as nothing."""
    torch.manual_seed(0)
    dev = Model(guidance=True)
    nn.init.normal_(dev.flux.final_layer.linear.weight, std=0.1)
    return dev


def drawn(net: nn.Module, guidance: float | None) -> torch.Tensor:
    """The velocity of nine cells and five words, always the same: [1,9,64]."""
    torch.manual_seed(1)
    x, txt, vec = torch.randn(1, 9, 64), torch.randn(1, 5, text.T5_WIDTH), torch.randn(1, 16)
    strength = None if guidance is None else torch.tensor([guidance])
    rest = flux.turns(torch.zeros(1, 14, 3)), torch.zeros(1, 14)
    return net(x, txt, vec, torch.tensor([0.6]), strength, *rest)[0]


@torch.no_grad()
def test_a_lora_beside_the_layers_is_one_in_their_weights() -> None:
    dev = dev_that_moves()
    lora = train_lora.Lora(dev)
    for weight in lora.learning():
        nn.init.normal_(weight, std=0.1)
    lora.scale.fill_(1.7)
    plain, made = drawn(dev.flux, 3.0), drawn(lora.flux, 3.0)
    for name, part in lora.delta().items():
        dev.flux.get_parameter(f"{name}.weight").add_(part.up @ part.down, alpha=1.7)
    wanted = drawn(dev.flux, 3.0)
    assert (wanted - plain).abs().max() > 0.1
    assert (made - wanted).abs().max() < 1e-3


@torch.no_grad()
def test_a_norm_of_half_precision_is_summed_in_float32() -> None:
    """Without the warning of torch's own, which processors that know bf16 would meet."""
    torch.manual_seed(0)
    norm, x = flux.Scale(), torch.randn(4, flux.HEAD).bfloat16()
    nn.init.uniform_(norm.scale, 0.5, 1.5)
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


@torch.no_grad()
@pytest.mark.parametrize("rank", [train_lora.RANK, train_lora.RANK // 4], ids=["as many", "fewer"])
def test_a_lora_goes_on_from_one_of_as_many_ranks_or_fewer(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    dev, more = dev_that_moves(), train_lora.RANK
    monkeypatch.setattr(train_lora, "RANK", rank)
    known = train_lora.Lora(dev)
    for weight in known.learning():
        nn.init.normal_(weight, std=0.1)
    monkeypatch.setattr(train_lora, "RANK", more)
    lora = train_lora.Lora(dev)
    lora.take(loras.joined(loras.diffusers(known.delta()), lora.beside))
    assert (drawn(lora.flux, 3.0) - drawn(dev.flux, 3.0)).abs().max() > 0.1
    assert (drawn(lora.flux, 3.0) - drawn(known.flux, 3.0)).abs().max() < 1e-4
    assert all(len(part.down) == more for part in lora.delta().values())


def test_what_goes_on_sees_other_images_each_time() -> None:
    one, other = ({"up": torch.full((2, 2), value)} for value in (0.0, 1.0))
    assert len({loop.seed(4, known) for known in (None, one, other)}) == 3
    assert loop.seed(4, one) == loop.seed(4, {"up": torch.zeros(2, 2)})


def test_a_loras_scales_lie_near_the_ends_most_often() -> None:
    dice = random.Random(0)
    scales = sorted(train_lora.scale(dice) for _ in range(3000))
    least, most = train_lora.SCALES
    assert least <= scales[0] < scales[-1] <= most
    # The arcsine distribution: a third lies in the first quarter, and a third in the last.
    first, last = (least * (most / least) ** share for share in (0.25, 0.75))
    assert sum(one < first for one in scales) == pytest.approx(1000, rel=0.1)
    assert sum(one > last for one in scales) == pytest.approx(1000, rel=0.1)


@torch.no_grad()
def test_a_student_begins_as_its_teacher() -> None:
    dev = dev_that_moves()
    student = train_schnell.student_of(dev)
    wanted, made = drawn(dev.flux, train_schnell.GUIDANCE), drawn(student.flux, None)
    assert wanted.abs().max() > 0.1
    assert (made - wanted).abs().max() < 1e-4
