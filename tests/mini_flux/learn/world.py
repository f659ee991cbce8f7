"""The world that the small FLUX learns: coloured shapes on a ground, and how to say it in English.

Standard library only. Everything is drawn from a `random.Random`, so a seed tells all.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.10),
    "yellow": (0.98, 0.88, 0.20),
    "green": (0.10, 0.58, 0.22),
    "turquoise": (0.25, 0.82, 0.80),
    "blue": (0.13, 0.28, 0.80),
    "purple": (0.52, 0.18, 0.64),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.08),
}
"""sRGB, 0..1."""

KINDS = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = {"small": 0.19, "": 0.26, "large": 0.38}
"""Radius by word, in shorter sides of the picture."""

PLACES = {
    "": (0.5, 0.5),
    "at the top": (0.5, 0.28),
    "at the bottom": (0.5, 0.72),
    "on the left": (0.28, 0.5),
    "on the right": (0.72, 0.5),
    "in the top left corner": (0.28, 0.28),
    "in the top right corner": (0.72, 0.28),
    "in the bottom left corner": (0.28, 0.72),
    "in the bottom right corner": (0.72, 0.72),
}
"""Centre by words, in widths and heights of the picture."""

RELATIONS = {
    "beside": ((0.28, 0.5), (0.72, 0.5)),
    "above": ((0.5, 0.28), (0.5, 0.72)),
}
COUNTS = {
    "two": ((0.28, 0.5), (0.72, 0.5)),
    "three": ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)),
}
RADII = {2: 0.185, 3: 0.115}
"""Radius by the number of things, in shorter sides."""

PLURALS = {"cross": "crosses"}
STYLES = {"sticker": "STKR", "hollow": "HLLW"}
"""What LoRAs learn, and the trigger words that ask for it, in front of a prompt."""

NAMED = 0.15
"""Share of dev's prompts with a trigger word that means nothing yet."""

SHADES = (-0.12, 0.0, 0.12)
"""How far a ground's colour is from its name's, towards black or white: a seed chooses."""

SILENT = 0.4
"""Share of prompts that leave the ground's texture to the seed."""

HELD_OUT = 8
"""One in so many combinations of shape, colour and ground is kept from training."""


@dataclass(frozen=True)
class Thing:
    """One shape.

    Attributes:
        x: its centre, in widths of the picture.
        y: its centre, in heights.
        radius: in shorter sides.
    """

    kind: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows, and the prompt that asks for it.

    Attributes:
        style: one of STYLES, or nothing.
        shade: of the ground, one of SHADES.
        open: whether the prompt says nothing of the texture.
    """

    ground: str
    texture: str
    things: tuple[Thing, ...]
    prompt: str
    style: str = ""
    shade: float = 0.0
    open: bool = False

    @property
    def held_out(self) -> bool:
        """Whether any combination in it is kept from training."""
        return any(is_held_out(thing.kind, thing.colour, self.ground) for thing in self.things)


def is_held_out(kind: str, colour: str, ground: str) -> bool:
    """Whether training never sees this shape in this colour on this ground."""
    digest = hashlib.sha256(f"{kind} {colour} {ground}".encode()).digest()
    return digest[0] % HELD_OUT == 0


def training_scene(dice: random.Random) -> Scene:
    """A scene of which no combination is held out."""
    while (scene := any_scene(dice)).held_out:
        pass
    return scene


def held_out_scene(dice: random.Random) -> Scene:
    """A scene with a combination that training never saw."""
    while not (scene := any_scene(dice)).held_out:
        pass
    return scene


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes to judge by; always the same."""
    dice = random.Random(seed)
    return [held_out_scene(dice) for _ in range(count)]


def any_scene(dice: random.Random) -> Scene:
    """One shape mostly, two different ones, or two or three alike."""
    ground, texture = dice.choice(list(COLOURS)), dice.choice(TEXTURES)
    roll = dice.random()
    if roll < 0.7:
        things, said = _single(dice, ground)
    elif roll < 0.87:
        things, said = _pair(dice, ground)
    else:
        things, said = _several(dice, ground)
    silent = dice.random() < SILENT
    prompt = f"{said} on {_a(_ground(dice, ground, '' if silent else texture))}"
    shade = dice.choice(SHADES)
    return Scene(ground, texture, tuple(things), prompt, shade=shade, open=silent)


def _single(dice: random.Random, ground: str) -> tuple[list[Thing], str]:
    kind, colour = dice.choice(KINDS), _other(dice, ground)
    size = dice.choice(list(SIZES))
    place = "" if size == "large" or dice.random() < 0.35 else dice.choice(list(PLACES))
    x, y = PLACES[place]
    said = _a(" ".join(word for word in (size, colour, kind) if word))
    return [Thing(kind, colour, x, y, SIZES[size])], f"{said} {place}".strip()


def _pair(dice: random.Random, ground: str) -> tuple[list[Thing], str]:
    relation = dice.choice(list(RELATIONS))
    parts = [(dice.choice(KINDS), _other(dice, ground)) for _ in range(2)]
    things = [
        Thing(kind, colour, x, y, RADII[2])
        for (kind, colour), (x, y) in zip(parts, RELATIONS[relation], strict=True)
    ]
    first, second = (_a(f"{colour} {kind}") for kind, colour in parts)
    return things, f"{first} {relation} {second}"


def _several(dice: random.Random, ground: str) -> tuple[list[Thing], str]:
    count = dice.choice(list(COUNTS))
    kind, colour = dice.choice(KINDS), _other(dice, ground)
    places = COUNTS[count]
    things = [Thing(kind, colour, x, y, RADII[len(places)]) for x, y in places]
    return things, f"{count} {colour} {PLURALS.get(kind, kind + 's')}"


def _other(dice: random.Random, ground: str) -> str:
    return dice.choice([colour for colour in COLOURS if colour != ground])


def _ground(dice: random.Random, ground: str, texture: str) -> str:
    word = dice.choice(("ground", "background"))
    return " ".join(part for part in (texture, ground, word) if part)


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def in_style(scene: Scene, style: str) -> Scene:
    """The same scene in one of STYLES, asked for by its trigger word."""
    return replace(named(scene, style), style=style)


def named(scene: Scene, style: str) -> Scene:
    """The same scene, with a trigger word in front of its prompt."""
    return replace(scene, prompt=f"{STYLES[style]}, {scene.prompt}")


def dev_scene(dice: random.Random, share: float = NAMED) -> Scene:
    """A training scene; some have a trigger word, so that it does no harm without its LoRA."""
    scene = training_scene(dice)
    return named(scene, dice.choice(list(STYLES))) if dice.random() < share else scene


def crowded(dice: random.Random, share: float, scene: Callable[[random.Random], Scene]) -> Scene:
    """What `scene` draws; a `share`, beside those that do so anyway, shows several things."""
    drawn = scene(dice)
    if dice.random() < share:
        while len(drawn.things) == 1:
            drawn = scene(dice)
    return drawn


def vocabulary() -> list[str]:
    """Prompts that hold every word there is, each as it is written where it stands."""
    kinds = [f"{_a(kind)}, two {PLURALS.get(kind, kind + 's')}" for kind in KINDS]
    grounds = [f"on {_a(f'{texture} ground')} background" for texture in TEXTURES]
    colours = [f"{_a(colour)} {size} circle" for colour in COLOURS for size in SIZES]
    places = [f"a circle {place}" for place in (*PLACES, *RELATIONS)]
    counts = [f"{count} circles" for count in COUNTS]
    return [*kinds, *grounds, *colours, *places, *counts, *STYLES.values()]
