"""What a LoRA file's head says of its making: the trainer, and the tags of the captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

from ...texts import one_line
from .peft import METADATA_KEY

NOT_SAID: Final = "not said"

_SOFTWARE: Final = "software"
"""Where ai-toolkit writes its name and version, as JSON. It writes some of kohya's keys too."""
_ONETRAINER: Final = "ot_"
_KOHYA: Final = "ss_"
_NETWORK: Final = "ss_network_module"
_TAGS: Final = "ss_tag_frequency"
_LONGEST: Final = 100


def trainer_of(metadata: Mapping[str, str], *, config: bool = False) -> str:
    """Return which program made a file, as far as its head tells.

    Args:
        metadata: of its head.
        config: whether PEFT's settings are beside it.
    """
    software = _table(metadata.get(_SOFTWARE))
    name, version = software.get("name"), software.get("version")
    if isinstance(name, str) and name.strip():
        more = f" {version}" if isinstance(version, str) else ""
        return one_line(f"{name}{more}", _LONGEST)
    if any(key.startswith(_ONETRAINER) for key in metadata):
        return "OneTrainer"
    if any(key.startswith(_KOHYA) for key in metadata):
        network = metadata.get(_NETWORK, "")
        return one_line(f"kohya's scripts ({network})" if network else "kohya's scripts", _LONGEST)
    if METADATA_KEY in metadata:
        return "diffusers"
    return "PEFT" if config else NOT_SAID


def frequent_tag(metadata: Mapping[str, str]) -> str | None:
    """Return the tag that most captions of a training had; None if the head counts none.

    It is often the trigger word; nobody promises that.
    """
    counts: Counter[str] = Counter()
    for folder in _table(metadata.get(_TAGS)).values():
        for tag, count in cast(
            "dict[str, Any]", folder if isinstance(folder, dict) else {}
        ).items():
            if isinstance(count, int):
                counts[tag] += count
    found = next((one_line(tag, _LONGEST) for tag, _ in counts.most_common(1)), "")
    return found or None


def _table(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
