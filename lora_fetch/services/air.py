"""AIRs, the names that CivitAI gives to what it and others have.

``urn:air:flux1:lora:civitai:<model>@<version>``
"""

from __future__ import annotations

import re

from ...errors import NotThisWayError

__all__ = ["site_and_name"]

_AIR = re.compile(r"(?:air:)?[a-z0-9_.+-]+:([a-z]+):([a-z]+):(.+)", re.IGNORECASE)
_LORA_TYPES = {"lora", "lycoris", "locon", "dora"}


def site_and_name(rest: str) -> tuple[str, str]:
    """Read what follows ``urn:`` or ``air:``.

    Returns:
        The site in lower case, and what the AIR says behind it.

    Raises:
        NotThisWayError: it is no AIR, or one of something else than a LoRA.
    """
    match = _AIR.fullmatch(rest)
    if match is None:
        raise NotThisWayError(
            "write an AIR as urn:air:flux1:lora:civitai:<model number>@<version number>"
        )
    kind = match[1].lower()
    if kind not in _LORA_TYPES:
        raise NotThisWayError(f"this AIR names a {kind}. Give one of a LoRA")
    return match[2].lower(), match[3]
