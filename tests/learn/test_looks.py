"""The measure of looks: what is drawn well counts nothing, each fault counts as large as it is."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from mini_flux.learn import looks, paint, world
from mini_flux.learn.looks import Looks
from mini_flux.learn.world import Scene, Thing

SIDE = 512


def scene_of(kind: str, style: str = "") -> Scene:
    return Scene("green", "striped", (Thing(kind, "red", 0.5, 0.5, 0.26),), "", style)


def painted(scene: Scene, width: int = SIDE, height: int = SIDE) -> looks.Array:
    return paint.picture(scene, width, height).numpy()


@pytest.mark.parametrize("size", [(512, 512), (640, 384), (256, 256)], ids=str)
@pytest.mark.parametrize("style", ["", *world.STYLES])
def test_what_is_painted_is_drawn_well(style: str, size: tuple[int, int]) -> None:
    dice = random.Random(3)
    plain = [world.any_scene(dice) for _ in range(10)]
    scenes = [world.in_style(scene, style) if style else scene for scene in plain]
    visible = [scene for scene in scenes if looks.has_edges(scene)]
    assert len(visible) >= 5
    for scene in visible:
        found = looks.measure(painted(scene, *size), scene)
        assert found.edge < 0.4, scene
        assert found.rough < 0.4, scene
        assert found.stray < 0.02, scene
        assert found.open < 0.02, scene


@pytest.mark.parametrize("kind", world.KINDS)
def test_where_a_thing_lies_and_how_large_it_is_does_not_count(kind: str) -> None:
    scene = scene_of(kind)
    (thing,) = scene.things
    moved = replace(thing, x=thing.x + 6 / SIDE, y=thing.y - 4 / SIDE, radius=thing.radius * 1.03)
    found = looks.measure(painted(replace(scene, things=(moved,))), scene)
    assert found.edge < 0.4
    assert found.stray == 0


@pytest.mark.parametrize(("colour", "ground"), [("black", "white"), ("white", "black")])
def test_a_ground_a_little_off_is_no_edge(colour: str, ground: str) -> None:
    things = tuple(Thing("ring", colour, x, 0.5, 0.185) for x in (0.28, 0.72))
    scene = Scene(ground, "striped", things, "")
    for shade in (-0.17, -0.06, 0.06, 0.17):
        found = looks.measure(painted(replace(scene, shade=shade)), scene)
        assert found.edge < 0.4, shade


def ragged(scene: Scene, by: float) -> looks.Array:
    """A picture whose cells each move the thing by themselves: deviation in pixels."""
    dice = random.Random(1)
    made = painted(scene)
    (thing,) = scene.things
    for top in range(0, SIDE, paint.CELL):
        for left in range(0, SIDE, paint.CELL):
            x, y = (at + dice.gauss(0, by) / SIDE for at in (thing.x, thing.y))
            cell = torch.tensor([[[top / paint.CELL, left / paint.CELL]]])
            other = replace(scene, things=(replace(thing, x=x, y=y),))
            drawn = paint.paint([other], torch.tensor([[SIDE, SIDE]]), cell).cells[0, 0]
            made[top : top + paint.CELL, left : left + paint.CELL] = drawn
    return made


def test_ragged_edges_count_as_ragged_as_they_are() -> None:
    scene = scene_of("circle")
    found = [looks.measure(ragged(scene, by), scene) for by in (0.0, 1.0, 2.0, 3.0)]
    edges, rough = [one.edge for one in found], [one.rough for one in found]
    assert edges == sorted(edges)
    assert rough == sorted(rough)
    # The mean of |x| of a normal distribution is 0.8 deviations.
    assert edges[3] == pytest.approx(0.8 * 3, rel=0.25)
    assert rough[3] == pytest.approx(0.8 * 3, rel=0.35)


def test_stray_pixels_are_counted() -> None:
    scene = scene_of("square")
    picture = painted(scene)
    picture[20:30, 40:60] = (1, 0, 1)
    assert looks.measure(picture, scene).stray == pytest.approx(1000 * 200 / SIDE**2)


def test_another_texture_than_the_one_asked_for_is_told_apart_from_stray_pixels() -> None:
    striped, dotted = (replace(scene_of("star"), texture=one) for one in ("striped", "dotted"))
    picture = painted(dotted)
    assert looks.measure(picture, striped) == looks.measure(picture, dotted)
    assert not looks.has_its_texture(picture, striped)
    assert looks.has_its_texture(picture, dotted)
    assert looks.has_its_texture(picture, replace(striped, open=True))


@pytest.mark.parametrize("style", world.STYLES)
def test_a_rim_with_a_gap_is_open(style: str) -> None:
    scene = scene_of("circle", style)
    whole, without = painted(scene), painted(replace(scene, things=()))
    assert looks.measure(whole, scene).open == 0
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    left = (-x > np.abs(y)) & (x**2 + y**2 > (0.26 * SIDE - 20 * (style == "hollow")) ** 2)
    whole[left] = without[left]
    assert looks.measure(whole, scene).open == pytest.approx(0.25, abs=0.04)


def test_where_nothing_is_drawn_all_is_wrong() -> None:
    scene = replace(scene_of("star"), things=())
    assert looks.measure(painted(scene), scene_of("star")) == looks.NOTHING


def test_the_mean_of_looks() -> None:
    assert looks.mean([Looks(1, 2, 3, 0), Looks(3, 4, 5, 1)]) == Looks(2, 3, 4, 0.5)
