"""From a shipped API prompt and a request to the prompt that runs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, TypeAlias, cast

from ..errors import InputError, RequestError
from .plan import make_plan
from .request import parse_request, unwrap

Prompt: TypeAlias = "dict[str, dict[str, Any]]"
"""ComfyUI's API format: node id to class_type, inputs and title."""

INPUTS_CLASS: Final = "FluxHotswapInputs"
LATENT_CLASS: Final = "FluxHotswapLatent"
SAVE_CLASS: Final = "FluxHotswapSave"
BESIDE: Final = ("go_fast_multiplier", "go_fast_lora", "input_image", "input_mask")
"""Inputs of the form that are no fields of a request."""
API_FOLDER: Final = "flux_hotswap_api"
"""Folder below ComfyUI's output folder for pictures that the API fetches and then removes."""


def workflow_for(request: Mapping[str, Any]) -> str:
    """Return the name of the simplest shipped workflow that can run request."""
    return "flux_lora_schema" if unwrap(request).get("image") else "text_to_image"


def fill_prompt(prompt: Prompt, request: Mapping[str, Any]) -> Prompt:
    """Return a copy of prompt whose Inputs node asks for request.

    Fields that the request leaves out are left out, also those that are connected, so that the
    node's own defaults apply and a missing seed is drawn anew. A picture that is connected stays so
    unless the request names one, and so does what is no field.

    Args:
        prompt: an API prompt with one Inputs node; other nodes stay as they are.
        request: the schema's field names (or aliases) to JSON values; null means not given.

    Raises:
        RequestError: the request is not valid, or the prompt has no way to take one of its fields.
    """
    parsed = parse_request(request)
    filled = copy.deepcopy(prompt)
    ids = [key for key, node in filled.items() if node["class_type"] == INPUTS_CLASS]
    if len(ids) != 1:
        raise InputError(f"the prompt has {len(ids)} {INPUTS_CLASS} nodes; give one that has one")
    inputs: dict[str, Any] = filled[ids[0]]["inputs"]
    kept = {name: value for name, value in inputs.items() if name in BESIDE}
    if parsed.image is None and "input_image" not in kept:
        make_plan(parsed, seed=0, mask=parsed.mask is not None)
    given = {name: value for name, value in asdict(parsed).items() if value is not None}
    for name in ("image", "mask"):
        if name in given:
            _check_taken(filled, name, given[name])
            kept.pop(f"input_{name}", None)
    filled[ids[0]]["inputs"] = given | kept
    return filled


def save_as(prompt: Prompt, prefix: str) -> list[str]:
    """Let the Save nodes of a prompt write below a prefix; their ids."""
    found = [key for key, node in prompt.items() if node["class_type"] == SAVE_CLASS]
    for key in found:
        prompt[key]["inputs"]["filename_prefix"] = prefix
    return found


def is_link(value: Any) -> bool:
    """Whether an input's value in a prompt is a wire: [node, output]."""
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], int | float)


def _check_taken(prompt: Prompt, name: str, value: object) -> None:
    """Raise if the latent cannot be a picture's: it takes a VAE only where it can."""
    latents = [node for node in prompt.values() if node["class_type"] == LATENT_CLASS]
    if not all("vae" in node["inputs"] for node in latents):
        raise RequestError(
            name, value, "use flux_lora_schema", "this workflow takes no input picture"
        )
