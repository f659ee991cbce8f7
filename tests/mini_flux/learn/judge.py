"""What a picture shows: the ground's colour, and each shape with its colour and place.

A plain check without any network: pixels take the nearest colour of the palette, connected pixels
that are not ground are things, and a thing is the shape whose outline it covers best.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from . import paint, world
from .world import Scene

SMALLEST = 0.008
"""Share of the picture below which pixels are no thing."""

_GRID = 48

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """A shape in a picture.

    Attributes:
        likeness: 0..1, how much of it and of the shape's outline is in both.
        x: its middle, in widths.
        y: its middle, in heights.
    """

    kind: str
    colour: str
    likeness: float
    x: float
    y: float


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what its prompt says."""

    ground: bool
    things: bool
    places: bool

    @property
    def agrees(self) -> bool:
        """Ground, colours and shapes are right, and none is missing or too many."""
        return self.ground and self.things


def judge(picture: NDArray[np.float32], scene: Scene) -> Verdict:
    """Compare a picture [H,W,3] 0..1 with the scene that its prompt describes."""
    ground, found = look(picture)
    wanted = Counter((thing.kind, thing.colour) for thing in scene.things)
    seen = Counter((thing.kind, thing.colour) for thing in found)
    near = all(
        any(
            one.kind == thing.kind
            and one.colour == thing.colour
            and abs(one.x - thing.x) < 0.12
            and abs(one.y - thing.y) < 0.12
            for one in found
        )
        for thing in scene.things
    )
    return Verdict(ground == scene.ground, seen == wanted, near)


def look(picture: NDArray[np.float32]) -> tuple[str, list[Found]]:
    """The ground's colour and the things of a picture [H,W,3] 0..1."""
    names, tones = _palette()
    # The square of the distance without that of the pixel, which is the same for all tones.
    distance = (tones**2).sum(axis=-1) - 2 * picture @ tones.T
    owner = np.array([list(world.COLOURS).index(name) for name in names])
    colour = owner[distance.argmin(axis=-1)]
    height, width = colour.shape
    rim = np.concatenate([colour[:8].ravel(), colour[-8:].ravel(), colour[:, :8].ravel()])
    rim = np.concatenate([rim, colour[:, -8:].ravel()])
    ground = int(np.bincount(rim, minlength=len(world.COLOURS)).argmax())
    # A thin line of a third colour lies where two colours meet; opening takes it away.
    clean = ndimage.binary_opening(colour != ground, np.ones((3, 3)))
    labels = np.zeros(clean.shape, np.int32)
    ndimage.label(clean, np.ones((3, 3)), output=labels)
    found = []
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[place] == index
        if mask.sum() < SMALLEST * height * width:
            continue
        inside = np.bincount(colour[place][mask], minlength=len(world.COLOURS))
        kind, likeness = shape_of(mask)
        rows, columns = place
        x = (columns.start + columns.stop) / 2 / width
        y = (rows.start + rows.stop) / 2 / height
        found.append(Found(kind, list(world.COLOURS)[int(inside.argmax())], likeness, x, y))
    return list(world.COLOURS)[ground], found


def shape_of(mask: Mask) -> tuple[str, float]:
    """The shape that covers a mask best when both fill their boxes, and how well it does."""
    rows, columns = (np.linspace(0, size - 1, _GRID).round().astype(int) for size in mask.shape)
    small = mask[np.ix_(rows, columns)]
    scores = {
        kind: float((small & shape).sum() / (small | shape).sum())
        for kind, shape in _templates().items()
    }
    best = max(scores, key=lambda kind: scores[kind])
    return best, scores[best]


@cache
def _palette() -> tuple[list[str], NDArray[np.float32]]:
    names, tones = [], []
    for name, tone in world.COLOURS.items():
        for shade in world.SHADES:
            base = paint.shaded(torch.tensor(tone), shade)
            names += [name, name]
            tones += [base.numpy(), paint.second_tone(base).numpy()]
    return names, np.stack(tones)


@cache
def _templates() -> dict[str, Mask]:
    made = {}
    fine = torch.linspace(-1.3, 1.3, 521)
    y, x = torch.meshgrid(fine, fine, indexing="ij")
    for kind, outline in paint.OUTLINES.items():
        inside = (outline(x, y) < 0).numpy()
        (place,) = ndimage.find_objects(inside.astype(int))
        inside = inside[place]
        rows, columns = (
            np.linspace(0, size - 1, _GRID).round().astype(int) for size in inside.shape
        )
        made[kind] = inside[np.ix_(rows, columns)]
    return made
