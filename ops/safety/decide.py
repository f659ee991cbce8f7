"""Which pictures are unsafe and what becomes of them. Pure: no files, no networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import SafetyError, UnsafeError

ImageBHWC: TypeAlias = Tensor
Action = Literal["drop", "black", "blur", "flag"]
ACTIONS: tuple[Action, ...] = get_args(Action)

SAFE_LABEL = "normal"
_BLUR_CELLS = 12
"""Cells along the shorter side of a blurred picture: colours stay, content does not."""

_BLUR_MOST = 192
"""Cells along the longer side at most, for pictures that are little more than a line."""


@dataclass(frozen=True)
class Verdict:
    """What a checker says about one picture: unsafe or not, and why, as text with scores."""

    unsafe: bool
    reason: str


def two_stages(flagged: bool, reason: str, second: Callable[[], str]) -> Verdict:
    """Combine the two networks as the hosted model does.

    A second stage that fails has said nothing about the picture: its error is passed on, and no
    verdict lets the picture through.

    Args:
        flagged: what the first says.
        reason: why, for the report.
        second: asks the second for its label; called only when the first flags.

    Returns:
        Unsafe if the first flags and the second does not answer exactly "normal".
    """
    if not flagged:
        return Verdict(False, reason)
    label = second()
    return Verdict(label != SAFE_LABEL, f"{reason}; second check: {label}")


def act(images: ImageBHWC, verdicts: Sequence[Verdict], action: Action) -> ImageBHWC:
    """Return the batch with the unsafe pictures dropped, blackened, blurred or left as they are.

    Args:
        images: [B,H,W,C] 0..1. Not modified.
        verdicts: one a picture.
        action: drop leaves them out, flag changes nothing.

    Returns:
        [b,H,W,C], same dtype and device, in batch order; `images` itself when nothing changes.

    Raises:
        SafetyError: the action is unknown or the verdicts do not fit the batch.
        UnsafeError: drop, and no picture is left.
    """
    if action not in ACTIONS:
        raise SafetyError(f"on_unsafe is {action!r}; choose one of {', '.join(ACTIONS)}.")
    if len(verdicts) != len(images):
        raise SafetyError(
            f"{len(images)} pictures but {len(verdicts)} verdicts; nothing passes. Choose another "
            "checker."
        )
    hits = [index for index, verdict in enumerate(verdicts) if verdict.unsafe]
    if not hits or action == "flag":
        return images
    if action == "drop":
        if len(hits) == len(images):
            raise UnsafeError(len(images), describe(verdicts))
        keep = [index for index in range(len(images)) if index not in hits]
        return images[keep]
    changed = images.clone()
    changed[hits] = _black(images[hits]) if action == "black" else _blur(images[hits])
    return changed


def describe(verdicts: Sequence[Verdict]) -> str:
    """Return one line a picture, by its index in the batch, and the count of safe ones."""
    lines = [
        f"picture {index}: {'unsafe' if verdict.unsafe else 'safe'}, {verdict.reason}"
        for index, verdict in enumerate(verdicts)
    ]
    safe = sum(not verdict.unsafe for verdict in verdicts)
    return "\n".join([f"{safe} of {len(verdicts)} pictures are safe", *lines])


def _black(images: ImageBHWC) -> ImageBHWC:
    black = torch.zeros_like(images)
    if images.shape[-1] in (2, 4):
        black[..., -1] = 1  # opaque
    return black


def _blur(images: ImageBHWC) -> ImageBHWC:
    height, width = images.shape[1:3]
    scale = _BLUR_CELLS / min(height, width)
    down, across = (min(max(1, round(side * scale)), _BLUR_MOST) for side in (height, width))
    planes = torch.nan_to_num(images.movedim(-1, 1).float(), nan=0.0, posinf=1.0, neginf=0.0)
    small = functional.adaptive_avg_pool2d(planes.clamp(0, 1), (down, across))
    large = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return large.movedim(1, -1).to(images.dtype)
