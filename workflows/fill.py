"""From a shipped API prompt and a request to the prompt that runs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prediction.errors import RequestError
from prediction.plan import make_plan
from prediction.request import parse_request

from .graph import Prompt

INPUTS_CLASS = "FluxHotswapInputs"


def fill_prompt(prompt: Prompt, request: Mapping[str, Any]) -> Prompt:
    """Return a copy of prompt whose Inputs node asks for request.

    Fields that the request leaves out are left out, so that the node's own defaults apply and a
    missing seed is drawn anew.

    Args:
        prompt: an API prompt with one Inputs node; other nodes stay as they are.
        request: the schema's field names (or aliases) to JSON values; null means not given.

    Raises:
        RequestError: the request is not valid, or the prompt has no way to take one of its fields.
    """
    parsed = parse_request(request)
    if parsed.image is None:
        make_plan(parsed, seed=0, mask=parsed.mask is not None)
    filled = copy.deepcopy(prompt)
    nodes = [node for node in filled.values() if node["class_type"] == INPUTS_CLASS]
    if len(nodes) != 1:
        raise ValueError(f"the prompt has {len(nodes)} {INPUTS_CLASS} nodes, not one")
    takes: set[str] = set(nodes[0]["inputs"])
    given = {name: value for name, value in asdict(parsed).items() if value is not None}
    for name, value in given.items():
        if name not in takes:
            raise RequestError(name, value, "leave it out", "this workflow does not take it")
    nodes[0]["inputs"] = given
    return filled
