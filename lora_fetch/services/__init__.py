"""The services that LoRAs come from. A new one is a module here and its line in the list."""

from __future__ import annotations

from typing import Final

from ..source import Service
from . import civitai, data, huggingface, link, local, replicate

__all__ = ["SERVICES"]

SERVICES: Final[tuple[Service, ...]] = (
    replicate.SERVICE,
    huggingface.SERVICE,
    civitai.SERVICE,  # behind the others that AIRs name
    link.SERVICE,  # behind all that have hosts of their own
    local.SERVICE,
    data.SERVICE,
)
"""In the order in which they are asked whether a text is theirs."""
