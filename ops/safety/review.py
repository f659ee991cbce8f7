"""A batch of pictures through a checker, one at a time, so that the batch never matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from ...errors import SafetyError
from ..encode import lay_on_white, to_pil
from .decide import Action, ImageBHWC, Verdict, act, describe

Checker: TypeAlias = Callable[[Image.Image], Verdict]
"""Anything that judges one 8-bit RGB picture."""


@dataclass(frozen=True)
class Checked:
    """A batch after the check.

    Attributes:
        images: [b,H,W,C], what may be passed on, without alpha.
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
    stop: tuple[type[Exception], ...] = (),
) -> Checked:
    """Judge every picture and act on the verdicts.

    What is passed on is what was judged: a picture with alpha is laid on white first, for the
    colours below what is transparent are in its file and no checker sees them.

    Args:
        images: [B,H,W,C] 0..1, any float type. Not modified.
        checker: judges one picture.
        action: what becomes of unsafe ones.
        before_each: called with the index before each picture, for progress and interrupts.
        stop: errors of the checker that are passed on as they are.

    Raises:
        UnsafeError: drop, and no picture is left.
        SafetyError: the pictures could not be checked.
    """
    if images.ndim != 4 or 0 in images.shape or not 1 <= images.shape[-1] <= 4:
        raise SafetyError(
            f"images has shape {list(images.shape)}; pictures are [B,H,W,C] with 1 to 4 channels. "
            "Connect an IMAGE output."
        )
    images = lay_on_white(images)
    verdicts: list[Verdict] = []
    for index, image in enumerate(images):
        if before_each:
            before_each(index)
        picture, _ = to_pil(image)
        try:
            verdicts.append(checker(picture.convert("RGB")))
        except stop:
            raise
        except Exception as error:
            raise SafetyError(
                f"The safety checker failed on picture {index} ({type(error).__name__}: "
                f"{error!s:.300}). That says nothing about the picture, and none passes unchecked. "
                "Run again; if it stays, choose another checker."
            ) from error
    flags = tuple(verdict.unsafe for verdict in verdicts)
    return Checked(act(images, verdicts, action), flags, describe(verdicts))


def unchecked(images: ImageBHWC) -> Checked:
    """Pass a batch through because the user turned the checker off, and say so."""
    report = f"safety checker disabled: {len(images)} pictures passed unchecked"
    return Checked(images, (False,) * len(images), report)
