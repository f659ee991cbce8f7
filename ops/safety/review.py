"""A batch of pictures through a checker, one at a time, so that the batch never matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from ..encode import to_pil
from .decide import Action, ImageBHWC, SafetyError, Verdict, act, describe

Checker: TypeAlias = Callable[[Image.Image], Verdict]
"""Anything that judges one 8-bit RGB picture."""


@dataclass(frozen=True)
class Checked:
    """A batch after the check.

    Attributes:
        images: [b,H,W,C], what may be passed on.
        flags: one a picture that came in, True for unsafe.
        report: the verdicts with their scores, as text.
    """

    images: ImageBHWC
    flags: tuple[bool, ...]
    report: str


def check_batch(
    images: ImageBHWC,
    checker: Checker,
    action: Action,
    *,
    before_each: Callable[[int], None] | None = None,
) -> Checked:
    """Judge every picture and act on the verdicts.

    Args:
        images: [B,H,W,C] 0..1, any float type. Not modified.
        checker: judges one picture.
        action: what becomes of unsafe ones.
        before_each: called with the index before each picture, for progress and interrupts.

    Raises:
        UnsafeError: drop, and no picture is left.
        SafetyError: the pictures could not be checked.
    """
    if images.ndim != 4 or 0 in images.shape or not 1 <= images.shape[-1] <= 4:
        raise SafetyError(
            f"images has shape {list(images.shape)}; pictures are [B,H,W,C] with 1 to 4 channels. "
            "Connect an IMAGE output."
        )
    verdicts: list[Verdict] = []
    for index, image in enumerate(images):
        if before_each:
            before_each(index)
        picture, _ = to_pil(image, flatten=True)
        verdicts.append(checker(picture.convert("RGB")))
    flags = tuple(verdict.unsafe for verdict in verdicts)
    return Checked(act(images, verdicts, action), flags, describe(verdicts))


def unchecked(images: ImageBHWC) -> Checked:
    """Pass a batch through because the user turned the checker off, and say so."""
    report = f"safety checker disabled: {len(images)} pictures passed unchecked"
    return Checked(images, (False,) * len(images), report)
