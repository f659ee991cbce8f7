"""How well a picture is drawn: how close its edges are to the ideal ones, and how smooth.

`judge` says what a picture shows. Here it is known what it should show; where the things lie and
how large they are is fitted first, so that a thing that is whole but moved counts as well drawn. So
are the ground's shade and texture; whether that is the texture asked for is a question of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, optimize
from torch import Tensor

from . import paint, world
from .world import Scene, Thing

Mask = NDArray[np.bool_]
Array = NDArray[np.float32]

WRONG = 0.25
"""How far a channel of a pixel, 0..1, has to be off to count as wrong."""

NEAR = 6.0
"""Wrong pixels further from an edge than this, in pixels, are stray."""

SMOOTH = 16.0
"""Deviation in pixels of the Gauss curve that an edge is smoothed with, for its roughness."""

FAR = 30.0
"""Edges further apart, in pixels, count as this far."""

REACH, GROW = 14.0, 0.07
"""How far a thing may have moved, in pixels, and grown."""


@dataclass(frozen=True)
class Looks:
    """What is wrong with a picture.

    Attributes:
        edge: mean distance between the edges of things and the ideal ones, both ways, in pixels.
        rough: mean distance between an edge and the same edge smoothed, in pixels.
        stray: wrong pixels away from every edge, in thousandths of the picture.
        open: share of a sticker's rim, or of a hollow thing's line, that is not there.
    """

    edge: float
    rough: float
    stray: float
    open: float = 0.0


NOTHING = Looks(FAR, FAR, 1000.0, 1.0)
"""Where no thing can be seen."""


def mean(all_of_them: Sequence[Looks]) -> Looks:
    """The mean of each figure."""
    names = [field.name for field in fields(Looks)]
    return Looks(*(fmean(getattr(one, name) for one in all_of_them) for name in names))


def has_edges(scene: Scene) -> bool:
    """Whether every edge can be seen: a white thing is lost in a sticker's rim."""
    return scene.style != "sticker" or all(thing.colour != "white" for thing in scene.things)


def measure(picture: Array, scene: Scene) -> Looks:
    """Compare a picture [H,W,3] float32 0..1 with the scene that its prompt describes.

    The scene must have edges, see `has_edges`.
    """
    height, width = picture.shape[:2]
    seen = torch.from_numpy(np.ascontiguousarray(picture))
    scene = _on_ground(seen, scene)
    got = _shown(seen, scene)
    edge = _edge(got)
    if not edge.any():
        return NOTHING
    fitted = replace(scene, things=_fitted(edge, scene, width, height))
    ideal = paint.picture(fitted, width, height)
    distances = [_distance(thing, width, height) for thing in fitted.things]
    short = min(width, height)
    levels = [paint.levels(scene.style, thing.kind, short) for thing in fitted.things]
    shapes = list(zip(distances, levels, strict=True))
    wanted = np.logical_or.reduce([_drawn(*shape) < 0 for shape in shapes])
    apart, rough = _apart(edge, _edge(wanted), wanted)
    wrong = ((seen - ideal).abs().amax(dim=-1) > WRONG).numpy()
    edges = [_edge(one < level) for one, its in shapes for level in its]
    away = ndimage.distance_transform_edt(~np.logical_or.reduce(edges))
    stray = 1000 * float((wrong & (np.asarray(away) > NEAR)).mean())
    return Looks(apart, rough, stray, _open(wrong, shapes))


def has_its_texture(picture: Array, scene: Scene) -> bool:
    """Whether the ground of a picture [H,W,3] float32 0..1 has the texture of its prompt."""
    seen = torch.from_numpy(np.ascontiguousarray(picture))
    return scene.open or _on_ground(seen, scene).texture == scene.texture


def _on_ground(seen: Tensor, scene: Scene) -> Scene:
    """The scene on the ground that a picture shows, with its texture and shade."""
    choices = [
        replace(scene, texture=texture, shade=shade)
        for texture, shade in itertools.product(world.TEXTURES, world.SHADES)
    ]
    height, width = seen.shape[:2]

    def wrong(choice: Scene) -> float:
        ground = paint.picture(replace(choice, things=()), width, height)
        return float((seen - ground).abs().clamp(max=WRONG).mean())

    return min(choices, key=wrong)


def _distance(thing: Thing, width: int, height: int) -> Array:
    """The distance of all pixels from a thing's outline, in pixels: [H,W]."""
    distance = paint.OUTLINES[thing.kind](*_pixels(thing, width, height))
    return (distance * thing.radius * min(width, height)).numpy()


def _pixels(thing: Thing, width: int, height: int) -> tuple[Tensor, Tensor]:
    """All pixels as x and y [H,W] from the middle of a thing, in its radii."""
    x, y, radius = _place(thing, width, height)
    rows = ((torch.arange(height) + 0.5 - y) / radius)[:, None]
    columns = ((torch.arange(width) + 0.5 - x) / radius)[None]
    columns, rows = torch.broadcast_tensors(columns, rows)
    return columns, rows


def _place(thing: Thing, width: int, height: int) -> tuple[float, float, float]:
    return thing.x * width, thing.y * height, thing.radius * min(width, height)


def _drawn(distance: Array, levels: Sequence[float]) -> Array:
    """The distance from what is drawn in a thing's colour."""
    half = np.float32(min(levels) / 2)
    return np.abs(distance - half) + half if half else distance


def _edge(mask: Mask) -> Mask:
    """The pixels of a mask at its edge; the border of the picture is none."""
    return mask & ~np.asarray(ndimage.binary_erosion(mask, border_value=1), np.bool_)


def _shown(seen: Tensor, scene: Scene) -> Mask:
    """Where a picture has the colour of the nearest thing, rather than the ground's or a rim's."""
    height, width = seen.shape[:2]
    nearest = torch.full((height, width), torch.inf)
    tone = torch.zeros_like(seen)
    for thing in scene.things:
        x, y = _pixels(thing, width, height)
        away = (x**2 + y**2).sqrt()
        # Far from it light would go on to white and to black, and to a ground of such a colour.
        near = (x.clamp(-1, 1), y.clamp(-1, 1))
        colour = paint.lit(torch.tensor(world.COLOURS[thing.colour]), *near)
        closer = away < nearest
        tone[closer] = colour[closer]
        nearest = torch.minimum(nearest, away)
    base = paint.shaded(torch.tensor(world.COLOURS[scene.ground]), scene.shade)
    others = [base, paint.second_tone(base)]
    if scene.style == "sticker":
        others.append(torch.ones(3))
    rest = torch.stack([((seen - one) ** 2).sum(dim=-1) for one in others]).amin(dim=0)
    mask = (((seen - tone) ** 2).sum(dim=-1) < rest).numpy()
    return np.asarray(ndimage.binary_opening(mask, np.ones((2, 2))), np.bool_)


def _fitted(edge: Mask, scene: Scene, width: int, height: int) -> tuple[Thing, ...]:
    """The things of a scene where the edges in a picture say that they are."""
    short = min(width, height)
    points = np.argwhere(edge)[:, ::-1] + 0.5
    starts = [np.array(_place(thing, width, height)) for thing in scene.things]
    away = [np.linalg.norm(points - start[:2], axis=1) / start[2] for start in starts]
    owner = np.argmin(away, axis=0)
    made = []
    for index, (thing, start) in enumerate(zip(scene.things, starts, strict=True)):
        own = torch.from_numpy(points[(owner == index) & (away[index] < 1.6)].astype(np.float32))
        if len(own) < 20:
            made.append(thing)
            continue
        # An edge is made of the outermost pixels inside.
        inner = [one + 0.5 for one in paint.levels(scene.style, thing.kind, short) if one < 0]
        off = _misses(paint.OUTLINES[thing.kind], own, [-0.5, *inner])
        limits = np.array([REACH, REACH, GROW * start[2]])
        bounds = (start - limits, start + limits)
        found = optimize.least_squares(off, start, bounds=bounds, loss="soft_l1", diff_step=1e-3)
        x, y, radius = found.x.tolist()
        made.append(replace(thing, x=x / width, y=y / height, radius=radius / short))
    return tuple(made)


def _misses(
    outline: Callable[[Tensor, Tensor], Tensor], points: Tensor, levels: Sequence[float]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """How far points [N,2] are from the nearest edge, by a thing's x, y and radius."""

    def off(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, radius = numbers
        distance = outline((points[:, 0] - x) / radius, (points[:, 1] - y) / radius) * radius
        from_edges = torch.stack([(distance - level).abs() for level in levels])
        return from_edges.amin(dim=0).double().numpy()

    return off


def _apart(got: Mask, ideal: Mask, inside: Mask) -> tuple[float, float]:
    """How far two edges are apart, and how rough the first is, both in pixels."""
    to_ideal = np.asarray(ndimage.distance_transform_edt(~ideal)).clip(max=FAR)
    to_got = np.asarray(ndimage.distance_transform_edt(~got)).clip(max=FAR)
    distance = (to_ideal[got].mean() + to_got[ideal].mean()) / 2
    beside = np.where(got, np.where(inside, -to_ideal, to_ideal), 0.0)
    weight = ndimage.gaussian_filter(got.astype(float), SMOOTH)
    smooth = ndimage.gaussian_filter(beside, SMOOTH) / np.maximum(weight, 1e-9)
    return float(distance), float(np.abs(beside - smooth)[got].mean())


def _open(wrong: Mask, shapes: Sequence[tuple[Array, Sequence[float]]]) -> float:
    """The share of wrong pixels along the middles of a style's rims or lines."""
    lines = [
        np.abs(distance - (one + other) / 2) < abs(one - other) / 4
        for distance, levels in shapes
        for one, other in itertools.pairwise(levels)
    ]
    return float(wrong[np.logical_or.reduce(lines)].mean()) if lines else 0.0
