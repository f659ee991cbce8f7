"""The shipped API prompts as a client fills them in: the values go to the form as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtime.environment import ROOT

from flux_hotswap.prediction.fill import Prompt

FORM = "1"
"""The form's number in every shipped prompt."""


def form_graph(fields: Mapping[str, Any], name: str = "flux_lora_schema") -> Prompt:
    """Return a shipped prompt whose form has these values and no others, right or wrong."""
    path = ROOT / "workflows" / "api" / f"{name}.json"
    made: Prompt = json.loads(path.read_text("utf-8"))
    made[FORM]["inputs"] = dict(fields)
    return made
