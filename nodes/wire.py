"""The one wire of a request: what was asked for, what was decided, and the input pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ..prediction.plan import Plan
from ..prediction.request import Request

if TYPE_CHECKING:
    from torch import Tensor

RequestWire: Final = io.Custom("HOTSWAP_REQUEST")
"""The type of the socket."""

ABSENT: Final[Any] = object()
"""Stands for an input that is not connected; a connected one reaches a fingerprint as None."""


@dataclass(frozen=True)
class Prediction:
    """A request that is ready to run.

    Attributes:
        request: what was asked for.
        plan: everything that is decided about it.
        image: [B,H,W,C] 0..1, the input picture, or None.
        mask: [B,H,W] 0..1, its mask, or None.
    """

    request: Request
    plan: Plan
    image: Tensor | None = None
    mask: Tensor | None = None


def request_input(decides: str) -> io.Input:
    """Return the socket that takes a request.

    Args:
        decides: what the node takes from it instead of its own widgets, for the tooltip.
    """
    return RequestWire.Input(
        "request",
        optional=True,
        tooltip=f"From the Inputs node. When connected, it decides {decides}; the node's own "
        "fields for that are ignored.",
    )
