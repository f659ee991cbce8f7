"""From JSON (or any mapping) to a frozen, validated Request."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from ..errors import RequestError
from .spec import FIELD, FIELD_OF, FIELDS, Field, Kind

_HALF: Final = re.compile("[\ud800-\udfff]")
"""A lone half of a pair, which JSON can hold and neither a tokenizer nor a file can."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prediction as it was asked for, every field valid, None where nothing was given."""

    prompt: str
    image: str | None
    mask: str | None
    aspect_ratio: str
    height: int | None
    width: int | None
    prompt_strength: float
    model: str
    num_outputs: int
    num_inference_steps: int
    guidance_scale: float
    seed: int | None
    output_format: str
    output_quality: int
    disable_safety_checker: bool
    go_fast: bool
    megapixels: str
    lora: str | None
    lora_scale: float
    extra_lora: str | None
    extra_lora_scale: float


def parse_request(raw: Mapping[str, Any]) -> Request:
    """Return the request that raw describes.

    Args:
        raw: field names of the schema, or their aliases, to JSON values. null means not given. The
            body of a call to the hosted model, which has them under "input", is understood too.

    Raises:
        RequestError: a field is unknown, missing, given twice, of the wrong type or out of range.
    """
    given = by_field(unwrap(raw))
    values = {field.name: _value(field, given.get(field.name)) for field in FIELDS}
    return Request(**values)


def unwrap(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a request: those under "input" in the body of a hosted call."""
    inner = raw.get("input")
    return cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else raw


def check_value(field: Field, value: object) -> Any:
    """Return value as field holds it.

    Raises:
        RequestError: value is of the wrong type or out of range.
    """
    if field.kind is Kind.BOOLEAN:
        ok = isinstance(value, bool)
    elif field.kind is Kind.ENUM:
        ok = isinstance(value, str) and value in field.choices
    elif field.kind in (Kind.STRING, Kind.URI):
        ok = isinstance(value, str)
    else:
        return _number(field, value)
    if not ok:
        raise RequestError(field.name, value, field.allowed)
    if isinstance(value, str) and _HALF.search(value):
        raise RequestError(
            field.name, value, "write it again, or remove it", "holds half of a character"
        )
    return value


def by_field(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given, by the field's own name.

    Args:
        raw: names or aliases to JSON values; null means not given.

    Raises:
        RequestError: a field is unknown, or given twice.
    """
    given: dict[str, Any] = {}
    for key, value in raw.items():
        name = FIELD_OF.get(key)
        if name is None:
            raise RequestError(str(key), value, _suggestion(str(key)), "no such field")
        if value is None:
            continue
        if name in given:
            raise RequestError(key, value, f"give {name} once", f"{name} is given twice")
        given[name] = value
    return given


def nearest(key: str) -> str:
    """Return the field, or its alias, that a wrong name may stand for; empty if none may."""
    return next(iter(difflib.get_close_matches(key.lower(), FIELD_OF, n=1)), "")


def _suggestion(key: str) -> str:
    near = nearest(key)
    return f"did you mean {near}?" if near else "the fields are " + ", ".join(FIELD)


def _value(field: Field, value: object) -> Any:
    if value is None:
        if field.required:
            raise RequestError(field.name, None, field.allowed, "is missing")
        return field.default
    checked = check_value(field, value)
    if field.kind is Kind.URI:
        checked = checked.strip()  # as of a LoRA: pasted text often ends in a line break
    # An emptied text box means "nothing", but an empty prompt is a prompt.
    blank = isinstance(checked, str) and not checked.strip() and not field.required
    return None if blank else checked


def _number(field: Field, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(field.name, value, field.allowed)
    if isinstance(value, float):
        if not math.isfinite(value) or (field.kind is Kind.INTEGER and not value.is_integer()):
            raise RequestError(field.name, value, field.allowed)
        if field.kind is Kind.INTEGER:
            value = int(value)
    low = -math.inf if field.minimum is None else field.minimum
    high = math.inf if field.maximum is None else field.maximum
    if not low <= value <= high:
        raise RequestError(field.name, value, field.allowed)
    return value
