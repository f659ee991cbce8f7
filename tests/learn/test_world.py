"""The world of shapes: what training may see, and whether the judge sees what was painted."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from mini_flux.learn import judge, paint, world
from mini_flux.learn.world import Scene, Thing

from flux_hotswap.prediction.sizes import PRESETS, preset_size


def scene_of(kind: str, colour: str = "red", ground: str = "white", **more: str) -> Scene:
    return Scene(ground, more.get("texture", "plain"), (Thing(kind, colour, 0.5, 0.5, 0.25),), "")


def test_training_never_sees_what_is_held_out() -> None:
    dice = random.Random(0)
    for scene in (world.training_scene(dice) for _ in range(2000)):
        for thing in scene.things:
            assert not world.is_held_out(thing.kind, thing.colour, scene.ground)
    assert all(world.held_out_scene(dice).held_out for _ in range(100))


@pytest.mark.parametrize(("share", "several"), [(0.0, 0.3), (0.5, 0.65), (1.0, 1.0)])
def test_crowded_scenes_show_several_things_as_often_as_asked(share: float, several: float) -> None:
    dice = random.Random(0)
    scenes = [world.crowded(dice, share, world.training_scene) for _ in range(2000)]
    found = [scene for scene in scenes if len(scene.things) > 1]
    assert len(found) / 2000 == pytest.approx(several, abs=0.03)
    assert not any(scene.held_out for scene in scenes)
    relations = [sum(word in scene.prompt for scene in found) for word in world.RELATIONS]
    assert min(relations) / len(found) > 0.2


def test_one_combination_in_eight_is_held_out() -> None:
    every = list(itertools.product(world.KINDS, world.COLOURS, world.COLOURS))
    held = [one for one in every if world.is_held_out(*one)]
    assert len(every) / 10 < len(held) < len(every) / 6
    for position in range(3):
        assert {one[position] for one in held} == {one[position] for one in every}


def test_a_seed_tells_the_scene() -> None:
    one, other, third = (world.any_scene(random.Random(seed)) for seed in (5, 5, 6))
    assert one == other != third


@pytest.mark.parametrize("size", [(512, 512), (768, 320), (320, 768)], ids=str)
def test_the_judge_agrees_with_what_was_painted(size: tuple[int, int]) -> None:
    dice = random.Random(1)
    generator = torch.Generator().manual_seed(1)
    wrong = []
    for _ in range(40):
        scene = world.any_scene(dice)
        picture = paint.picture(scene, *size)
        noisy = picture + 0.05 * torch.randn(picture.shape, generator=generator)
        verdict = judge.judge(noisy.clamp(0, 1).numpy(), scene)
        if not (verdict.agrees and verdict.places):
            wrong.append(scene.prompt)
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(world.KINDS, 2)), ids=str)
def test_the_judge_tells_shapes_apart(kind: str, other: str) -> None:
    picture = paint.picture(scene_of(kind), 256, 256).numpy()
    assert judge.judge(picture, scene_of(kind)).agrees
    assert not judge.judge(picture, scene_of(other)).agrees


@pytest.mark.parametrize(
    "wrong",
    [
        scene_of("star", "blue"),
        scene_of("star", ground="green"),
        Scene(
            "white", "plain", (*scene_of("star").things, Thing("star", "red", 0.2, 0.2, 0.1)), ""
        ),
        Scene("white", "plain", (), ""),
    ],
    ids=["colour", "ground", "one more", "none"],
)
def test_the_judge_refuses(wrong: Scene) -> None:
    picture = paint.picture(scene_of("star"), 256, 256).numpy()
    assert not judge.judge(picture, wrong).agrees


def test_the_judge_refuses_noise_and_emptiness() -> None:
    noise = np.random.default_rng(0).random((256, 256, 3), np.float32)
    assert not judge.judge(noise, scene_of("star")).agrees
    assert judge.look(np.ones((256, 256, 3), np.float32)) == ("white", [])


def test_cells_are_painted_as_the_whole_is() -> None:
    scene = world.in_style(world.any_scene(random.Random(3)), "sticker")
    whole = paint.picture(scene, 512, 256).view(16, 16, 32, 16, 3).transpose(1, 2)
    some = torch.tensor([[3.0, 4.0], [15.0, 31.0], [8.0, 16.0]])
    painted = paint.paint([scene], torch.tensor([[512, 256]]), some[None]).cells
    rows, columns = some.long().T
    assert torch.equal(painted[0], whole[rows, columns])


@pytest.mark.parametrize("style", world.STYLES)
def test_a_style_shows(style: str) -> None:
    scene = scene_of("circle", ground="green")
    changed = paint.picture(world.in_style(scene, style), 256, 256) - paint.picture(scene, 256, 256)
    assert (changed.abs().amax(dim=-1) > 0.1).float().mean() > 0.05


@pytest.mark.parametrize("kind", world.KINDS)
def test_all_is_made_hollow_but_what_is_so_already(kind: str) -> None:
    scene = scene_of(kind, ground="green")
    plain, styled = (
        paint.picture(one, 256, 256) for one in (scene, world.in_style(scene, "hollow"))
    )
    assert torch.equal(plain, styled) == (kind == "ring")


@pytest.mark.parametrize("ratio", PRESETS)
def test_everything_fits_into_every_size(ratio: str) -> None:
    size = preset_size(ratio, "0.25")
    dice = random.Random(2)
    for scene in (world.any_scene(dice) for _ in range(200)):
        for thing in scene.things:
            short = min(size.width, size.height)
            for at, side in ((thing.x, size.width), (thing.y, size.height)):
                assert thing.radius * short * 0.8 < min(at, 1 - at) * side
