"""Paint scenes, whole or only some cells of 16 x 16 pixels: a cell is one token of FLUX.

A shape is a function that gives the distance of points from its outline, negative inside; its
edge is softened over one pixel. Things are lit from the top left. Textures repeat with every cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import world
from .world import Scene

CELL = 16
_INNER = torch.arange(CELL) - (CELL - 1) / 2
"""The rows and columns of a cell's pixels from its middle."""

_RIM = 0.04
"""Width of the white around a sticker, in shorter sides."""

_LINE = 0.015
"""Half the width of what is left of a hollow shape, in shorter sides."""

_HOLLOW_ALREADY = ("ring",)
"""Kinds that the hollow style leaves as they are."""

_CONTRAST = 0.3

_LIGHT = 0.2
"""How far a thing's colour goes towards white where x + y is -1 radius, and to black at 1."""


# --- outlines; x and y in radii, y down ---


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt() - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.85


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() * 1.25 + y.abs() - 1) / 1.6


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return ((x * x + y * y).sqrt() - 0.76).abs() - 0.24


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    # From (0, -1) to (0.95, 0.75).
    side = (x.abs() * 1.75 - (y + 1) * 0.95) / 1.991
    return torch.maximum(side, y - 0.75)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    upright = torch.maximum(x.abs() - 0.32, y.abs() - 0.95)
    return torch.minimum(upright, torch.maximum(x.abs() - 0.95, y.abs() - 0.32))


def _star(x: Tensor, y: Tensor) -> Tensor:
    # Fold onto one half of a tip: 36 degrees, from the tip at (0, -1) to the notch at 0.45.
    step = 2 * torch.pi / 5
    angle = torch.atan2(x, -y)
    angle = (angle - step * (angle / step).round()).abs()
    distance = (x * x + y * y).sqrt()
    along, across = distance * angle.cos(), distance * angle.sin()
    notch_along, notch_across = 0.45 * 0.80902, 0.45 * 0.58779
    run, rise = 1 - notch_along, notch_across
    return ((along - 1) * rise + across * run) / (run * run + rise * rise) ** 0.5


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # A square on its corner, with a half circle on each of its upper sides.
    half = 0.78
    corner = ((x.abs() + (y - 0.15).abs()) - half) / 2**0.5
    lobe = ((x.abs() - half / 2) ** 2 + (y - 0.15 + half / 2) ** 2).sqrt() - half / 2**0.5
    return torch.minimum(corner, lobe)


OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
}


@dataclass(frozen=True)
class Painted:
    """Some cells of B scenes.

    Attributes:
        cells: [B,N,16,16,3] float32 0..1.
        outline: [B,N] distance of the cells' middles from the nearest outline in pixels, negative
            inside; 1000 where none is near.
        place: [B,N,2] x and y of the cells' middles from the nearest thing's, in its radii.
        kind: [B,N] the nearest thing's kind, -1 where none is near.
    """

    cells: Tensor
    outline: Tensor
    place: Tensor
    kind: Tensor


def all_cells(width: int, height: int) -> Tensor:
    """The cells of a picture, row by row: [width*height/256,2] (row, column)."""
    rows, columns = torch.arange(height // CELL), torch.arange(width // CELL)
    return torch.cartesian_prod(rows, columns).float()


def picture(scene: Scene, width: int, height: int) -> Tensor:
    """A whole picture: [H,W,3] float32 0..1."""
    cells = all_cells(width, height)
    painted = paint([scene], torch.tensor([[width, height]]), cells[None]).cells
    grid = painted[0].view(height // CELL, width // CELL, CELL, CELL, 3)
    return grid.permute(0, 2, 1, 3, 4).reshape(height, width, 3)


def paint(scenes: Sequence[Scene], sizes: Tensor, cells: Tensor) -> Painted:
    """Paint some cells of each scene.

    Args:
        scenes: B of them.
        sizes: [B,2] width and height in pixels.
        cells: [B,N,2] row and column of the cells.
    """
    batch, count = cells.shape[:2]
    grounds = torch.stack([ground(scene) for scene in scenes])
    made = Painted(
        cells=grounds[:, None].expand(batch, count, CELL, CELL, 3).clone(),
        outline=torch.full((batch, count), 1e3),
        place=torch.full((batch, count, 2), 1e3),
        kind=torch.full((batch, count), -1),
    )
    middles = (cells.flip(-1) + 0.5) * CELL
    for slot in range(max(len(scene.things) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.things) > slot]
        rows.sort(key=lambda row: scenes[row].things[slot].kind)
        _add([scenes[row] for row in rows], slot, torch.tensor(rows), sizes, middles, made)
    return made


def _add(
    scenes: Sequence[Scene],
    slot: int,
    rows: Tensor,
    sizes: Tensor,
    middles: Tensor,
    made: Painted,
) -> None:
    """Paint one thing of each of these scenes; they are sorted by the kind of that thing."""
    things = [scene.things[slot] for scene in scenes]
    numbers = torch.tensor([(thing.x, thing.y, thing.radius) for thing in things])
    short = sizes[rows].amin(dim=1).float()
    centre, radius = numbers[:, :2] * sizes[rows], numbers[:, 2] * short
    # Only the cells near the thing, so that the rest costs nothing.
    offset = middles[rows] - centre[:, None]
    near = offset.norm(dim=-1) < (radius * 1.45 + 24 + short * _RIM)[:, None]
    at, cell = near.nonzero(as_tuple=True)
    distance = _distances(things, at, offset[at, cell], radius, _INNER)
    row = rows[at]
    spot = made.cells[row, cell]
    made_hollow = [_made_hollow(scene.style, scene.things[slot].kind) for scene in scenes]
    hollow = torch.tensor(made_hollow)[at]
    if hollow.any():
        width = _LINE * short[at, None, None]
        line = (distance + width).abs() - width
        distance = torch.where(hollow[:, None, None], line, distance)
    sticker = torch.tensor([scene.style == "sticker" for scene in scenes])[at]
    if sticker.any():
        cover = (0.5 + _RIM * short[at, None, None] - distance).clamp(0, 1)
        spot = spot.lerp(torch.ones(()), (cover * sticker[:, None, None])[..., None])
    tone = torch.tensor([world.COLOURS[thing.colour] for thing in things])[at, None, None]
    x, y = _inside(offset[at, cell], radius[at], _INNER)
    colour = lit(tone, x, y)
    made.cells[row, cell] = spot.lerp(colour, (0.5 - distance).clamp(0, 1)[..., None])
    half = CELL // 2
    made.outline[row, cell] = torch.minimum(made.outline[row, cell], distance[:, half, half])
    place = offset[at, cell] / radius[at, None]
    closer = place.norm(dim=-1) < made.place[row, cell].norm(dim=-1)
    row, cell, at = row[closer], cell[closer], at[closer]
    made.place[row, cell] = place[closer]
    made.kind[row, cell] = torch.tensor([list(OUTLINES).index(thing.kind) for thing in things])[at]


def _distances(
    things: Sequence[world.Thing], at: Tensor, offset: Tensor, radius: Tensor, inner: Tensor
) -> Tensor:
    """How far points of cells are from outlines, in pixels: [P,I,I].

    Args:
        things: T of them, sorted by kind.
        at: [P] which thing, ascending.
        offset: [P,2] x and y of the cells' middles from the middles of the things, in pixels.
        radius: [T] in pixels.
        inner: [I] the points' rows and columns from the cells' middles, in pixels.
    """
    u, v = _inside(offset, radius[at], inner)
    counts = torch.bincount(at, minlength=len(things)).tolist()
    ends = list(itertools.accumulate(counts))
    pieces, begin = [], 0
    for index, thing in enumerate(things):
        if index + 1 == len(things) or things[index + 1].kind != thing.kind:
            part = slice(begin, ends[index])
            pieces.append(OUTLINES[thing.kind](*torch.broadcast_tensors(u[part], v[part])))
            begin = ends[index]
    return torch.cat(pieces) * radius[at, None, None]


def _inside(offset: Tensor, radius: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """Points of cells as x [P,1,I] and y [P,I,1] from the middles of things, in radii."""
    scale = radius[:, None, None]
    x = (offset[:, 0, None, None] + inner[None, None, :]) / scale
    y = (offset[:, 1, None, None] + inner[None, :, None]) / scale
    return x, y


def lit(tone: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The colour of a thing [...,3] at points x and y [...] from its middle, in radii."""
    shade = (-_LIGHT * (x + y)).clamp(-1, 1)[..., None]
    return shaded(tone, shade)


def shaded(tone: Tensor, shade: Tensor | float) -> Tensor:
    """A colour [...,3] taken so far towards white, or below 0 towards black."""
    shade = torch.as_tensor(shade)
    return tone + shade.abs() * ((shade > 0).float() - tone)


def edges(scenes: Sequence[Scene], sizes: Tensor, cells: Tensor) -> Tensor:
    """How far the middles of cells are from the nearest edge, in pixels: [B,N].

    Args:
        scenes: B of them.
        sizes: [B,2] width and height in pixels.
        cells: [B,N,2] row and column of the cells.
    """
    made = torch.full(cells.shape[:2], 1e3)
    middles = (cells.flip(-1) + 0.5) * CELL
    for row, scene in enumerate(scenes):
        short = int(sizes[row].min())
        for thing in scene.things:
            centre = torch.tensor([thing.x, thing.y]) * sizes[row]
            radius = thing.radius * short
            x, y = ((middles[row] - centre) / radius).unbind(-1)
            distance = OUTLINES[thing.kind](x, y) * radius
            for level in levels(scene.style, thing.kind, short):
                made[row] = torch.minimum(made[row], (distance - level).abs())
    return made


def levels(style: str, kind: str, short: int) -> list[float]:
    """How far the edges of a style lie from a thing's outline, in pixels, the outline's own first.

    Args:
        style: one of `world.STYLES`, or nothing.
        kind: of the thing.
        short: the shorter side of the picture.
    """
    if style == "sticker":
        return [0.0, _RIM * short]
    return [0.0, -2 * _LINE * short] if _made_hollow(style, kind) else [0.0]


def _made_hollow(style: str, kind: str) -> bool:
    return style == "hollow" and kind not in _HOLLOW_ALREADY


def ground(scene: Scene) -> Tensor:
    """The ground's cell: [16,16,3]."""
    base = shaded(torch.tensor(world.COLOURS[scene.ground]), scene.shade)
    mark = _PATTERNS[scene.texture][..., None]
    return base + mark * (second_tone(base) - base)


def second_tone(base: Tensor) -> Tensor:
    """The tone of a texture's marks: lighter than dark colours, darker than light ones."""
    target = 0.0 if base.mean() > 0.6 else 1.0
    return base + _CONTRAST * (target - base)


def _patterns() -> dict[str, Tensor]:
    middle = torch.arange(CELL) - 7.5
    rows, columns = torch.meshgrid(middle, middle, indexing="ij")
    return {
        "plain": torch.zeros(CELL, CELL),
        "striped": (rows < 0).float(),
        "dotted": (4.5 - (rows**2 + columns**2).sqrt()).clamp(0, 1),
        "checked": ((rows < 0) ^ (columns < 0)).float(),
    }


_PATTERNS = _patterns()
