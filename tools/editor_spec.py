"""The fields, sizes and rules as a JavaScript module, for the pack's scripts in the graph editor.

What the planner decides is asked of the planner here: the scripts hold no rule of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

from ..ops.tokens import CLIP_LENGTH
from ..prediction.plan import SCHNELL_STEPS, T5_LENGTH, make_plan
from ..prediction.request import parse_request
from ..prediction.sizes import GRID, IMAGE_LIMIT, PRESETS, preset_size
from ..prediction.spec import CUSTOM, MEGAPIXELS, RANDOM_SEED_LIMIT, Field

EXACT: Final = 2**53 - 1
"""Largest whole number that JavaScript, and so a widget of the editor, holds exactly."""

_HEAD: Final = """\
// Written by python -m flux_hotswap.tools.schema.
// @ts-check

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {"string" | "uri" | "enum" | "integer" | "number" | "boolean"} kind
 * @property {boolean} required
 * @property {string | number | boolean | null} default - null: not given
 * @property {number | null} minimum
 * @property {number | null} maximum
 * @property {string[]} choices
 * @property {string[]} aliases
 */
/**
 * @typedef {object} Route
 * @property {boolean} go_fast
 * @property {boolean} image
 * @property {boolean} custom
 * @property {string} route
 * @property {string} reason
 */
"""


def editor_spec(fields: Sequence[Field]) -> str:
    """Return the text of `js/lib/spec.mjs` for these fields."""
    constants = {
        "GRID": ("number", GRID),
        "IMAGE_LIMIT": ("number", IMAGE_LIMIT),
        "CUSTOM": ("string", CUSTOM),
        "SCHNELL_STEPS": ("number", SCHNELL_STEPS),
        "RANDOM_SEED_LIMIT": ("number", RANDOM_SEED_LIMIT),
        "CLIP_LENGTH": ("number", CLIP_LENGTH),
        "T5_LENGTH": ("Record<string, number>", T5_LENGTH),
        "FIELDS": ("Field[]", [_field(field) for field in fields]),
        "SIZES": ("Record<string, Record<string, [number, number]>>", _sizes()),
        "ROUTES": ("Route[]", routes()),
    }
    blocks = [
        f"/** @type {{{kind}}} */\nexport const {name} = {_text(value)};\n"
        for name, (kind, value) in constants.items()
    ]
    return "\n".join([_HEAD, *blocks])


def routes() -> list[dict[str, Any]]:
    """Return which route the planner takes for each combination that decides it."""
    rows: list[dict[str, Any]] = []
    for go_fast, image, custom in product((False, True), repeat=3):
        raw: dict[str, Any] = {"prompt": "", "go_fast": go_fast}
        raw |= {"aspect_ratio": CUSTOM, "width": 1024, "height": 1024} if custom else {}
        plan = make_plan(parse_request(raw), seed=0, image=(64, 64) if image else None)
        given = {"go_fast": go_fast, "image": image, "custom": custom}
        rows.append(given | {"route": plan.route, "reason": plan.route_reason})
    return rows


def _field(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "kind": field.kind.value,
        "required": field.required,
        "default": field.default,
        "minimum": field.minimum,
        "maximum": None if field.maximum is None else min(field.maximum, EXACT),
        "choices": list(field.choices),
        "aliases": list(field.aliases),
    }


def _sizes() -> dict[str, dict[str, list[int]]]:
    return {
        name: {value: list(preset_size(name, value)) for value in MEGAPIXELS} for name in PRESETS
    }


def _text(value: Any) -> str:
    """Return a value as JavaScript, each entry of a list or mapping on a line of its own."""
    if isinstance(value, list):
        lines = [f"  {json.dumps(entry)}," for entry in value]  # pyright: ignore[reportUnknownVariableType]
        return "\n".join(["[", *lines, "]"])
    if isinstance(value, dict):
        pairs: list[tuple[str, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType]
        lines = [f"  {json.dumps(key)}: {json.dumps(entry)}," for key, entry in pairs]
        return "\n".join(["{", *lines, "}"])
    return json.dumps(value)
