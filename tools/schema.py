"""Writes what is made from the fields: schema.json, the editor's spec, tables, the page of fields.

`python -m flux_hotswap.tools.schema` writes the files, `--check` fails where one would change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..prediction.sizes import PRESETS, preset_size
from ..prediction.spec import FIELDS, MEGAPIXELS, Field, Kind
from .differences import DIFFERENCES
from .editor_spec import editor_spec
from .field_notes import FIELD_NOTES

ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check every generated file; returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="flux_hotswap.tools.schema", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    check = parser.parse_args(argv).check
    drifted = 0
    for path, text in generated(ROOT).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        drifted += 1
        if check:
            sys.stderr.write(
                f"{path.name} is out of date; run python -m flux_hotswap.tools.schema\n"
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    return int(check and drifted > 0)


def generated(root: Path) -> dict[Path, str]:
    """Return each generated file of the repository at root and the text it should hold."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = replace_block(text, "fields", fields_table())
    text = replace_block(text, "differences", f"{differences_table()}\n\n{topics_table()}")
    return {
        root / "prediction" / "schema.json": json.dumps(openapi(), indent=1) + "\n",
        readme: text,
        root / "docs" / "fields.md": fields_page(),
        root / "js" / "lib" / "spec.mjs": editor_spec(FIELDS),
    }


def replace_block(text: str, name: str, block: str) -> str:
    """Return text with what stands between the markers of block name replaced.

    Raises:
        ValueError: text lacks the markers.
    """
    start, end = f"<!-- {name}: generated -->", f"<!-- /{name} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"the markers {start} and {end} are missing")
    return f"{before}{start}\n{block}\n{end}{after}"


def openapi() -> dict[str, Any]:
    """Return the request and its answer as OpenAPI component schemas."""
    properties = {field.name: _property(field, order) for order, field in enumerate(FIELDS)}
    return {
        "openapi": "3.0.2",
        "info": {"title": "flux-hotswap", "version": "1"},
        "paths": {},
        "components": {
            "schemas": {
                "Input": {
                    "title": "Input",
                    "type": "object",
                    "required": [field.name for field in FIELDS if field.required],
                    "properties": properties,
                    "additionalProperties": False,
                },
                "Output": {
                    "title": "Output",
                    "type": "array",
                    "items": {"type": "string", "format": "uri"},
                },
            }
        },
    }


def fields_table() -> str:
    """Return the README's table of fields."""
    rows = ["| field | type | default | what it does |", "|---|---|---|---|"]
    rows += [
        f"| `{field.name}` | {_type_text(field)} | {_default_text(field)} | {field.help} |"
        for field in FIELDS
    ]
    return "\n".join(rows)


def differences_table() -> str:
    """Return the table of fields that differ from the hosted model."""
    rows = ["| field | the hosted model |", "|---|---|"]
    rows += [f"| `{field.name}` | {field.hosted} |" for field in FIELDS if field.hosted]
    return "\n".join(rows)


def topics_table() -> str:
    """Return the table of differences that concern no single field."""
    rows = ["| topic | the hosted model | here |", "|---|---|---|"]
    rows += [f"| {row.topic} | {row.hosted} | {row.ours} |" for row in DIFFERENCES]
    return "\n".join(rows)


def sizes_table() -> str:
    """Return the table of preset sizes."""
    heads = " | ".join(f"megapixels `{value}`" for value in MEGAPIXELS)
    rows = [f"| aspect_ratio | {heads} |", "|---|" + "---|" * len(MEGAPIXELS)]
    for name in PRESETS:
        sizes = " | ".join(str(preset_size(name, value)) for value in MEGAPIXELS)
        rows.append(f"| `{name}` | {sizes} |")
    return "\n".join(rows)


_PAGE_HEAD = """\
<!-- Written by python -m flux_hotswap.tools.schema. -->

# The fields

A request is one JSON object with these fields. Only `prompt` is required. null means "not given".
An unknown field, a number in quotes or a value out of range is refused with a message that names
the field, the value and what is allowed.

![An image, then text to image, image to image and inpainting](images/modes.webp)

Left to right: an input image; "a large yellow star on a dotted blue ground" as text to image; as
image to image at `prompt_strength` 0.4, which keeps the layout; and inpainted with a mask whose
right half is white. The [small FLUX](drawing.md) of `dev.py demo` drew them.
"""


def fields_page() -> str:
    """Return the page that tells of each field what it does here and on the hosted model."""
    parts = [
        _PAGE_HEAD,
        *(_field_section(field) for field in FIELDS),
        f"## Sizes\n\n{sizes_table()}\n",
        f"## Differences that concern no single field\n\n{topics_table()}\n",
    ]
    return "\n".join(parts)


def _field_section(field: Field) -> str:
    note = FIELD_NOTES[field.name]
    facts = [
        f"- Accepts: {_type_text(field)}",
        f"- Default: {_default_text(field) or 'not given'}",
        f"- The hosted model: {field.hosted or 'The same.'}",
    ]
    if field.aliases:
        names = ", ".join(f"`{alias}`" for alias in field.aliases)
        facts.append(f"- Other names for it in JSON: {names}")
    example = json.dumps(note.example, ensure_ascii=False)
    texts = [f"## `{field.name}`", field.help, note.detail, "\n".join(facts)]
    return "\n\n".join([*filter(None, texts), f"```json\n{example}\n```"]) + "\n"


def _property(field: Field, order: int) -> dict[str, Any]:
    kind = {Kind.URI: "string", Kind.ENUM: "string"}.get(field.kind, field.kind.value)
    optional: dict[str, Any] = {
        "format": "uri" if field.kind is Kind.URI else None,
        "enum": list(field.choices) or None,
        "default": field.default,
        "minimum": field.minimum,
        "maximum": field.maximum,
        "nullable": None if field.required else True,
        "x-aliases": list(field.aliases) or None,
    }
    return {
        "type": kind,
        "title": field.name.replace("_", " ").capitalize(),
        "description": field.help,
        "x-order": order,
    } | {key: value for key, value in optional.items() if value is not None}


def _type_text(field: Field) -> str:
    if field.kind is Kind.ENUM:
        return " ".join(f"`{choice}`" for choice in field.choices)
    if field.kind in (Kind.INTEGER, Kind.NUMBER):
        high = "2^64-1" if field.name == "seed" else field.maximum
        return f"{field.kind.value} {field.minimum}..{high}"
    return field.kind.value


def _default_text(field: Field) -> str:
    if field.required:
        return "required"
    return "" if field.default is None else f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    sys.exit(main())
