"""Files made from the fields: they are current, and a changed field is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.prediction.spec import FIELDS
from flux_hotswap.tools import schema as generate

ROOT = Path(__file__).resolve().parents[2]
CONTRACT: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "schema.json").read_text(encoding="utf-8")
)["input"]
INPUT: dict[str, Any] = generate.openapi()["components"]["schemas"]["Input"]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the generated files that the generator takes for the repository."""
    for path in generate.generated(ROOT):
        there = tmp_path / path.relative_to(ROOT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(path.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    return tmp_path


def test_what_is_generated() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in generate.generated(ROOT)]
    assert names == [
        "prediction/schema.json",
        "README.md",
        "docs/fields.md",
        "js/lib/spec.mjs",
    ]


def test_check_passes_on_a_copy(copy: Path) -> None:
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("changes", "drifted"),
    [
        ({"default": 3}, ["schema.json", "README.md", "fields.md", "spec.mjs"]),
        ({"maximum": 5}, ["schema.json", "README.md", "fields.md", "spec.mjs"]),
        ({"help": "Another text."}, ["schema.json", "README.md", "fields.md"]),
        ({"hosted": "Another number."}, ["README.md", "fields.md"]),
        ({"aliases": ("count",)}, ["schema.json", "fields.md", "spec.mjs"]),
    ],
    ids="+".join,
)
def test_a_changed_field_is_drift(
    changes: dict[str, Any],
    drifted: list[str],
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fields = [
        replace(field, **changes) if field.name == "num_outputs" else field for field in FIELDS
    ]
    monkeypatch.setattr(generate, "FIELDS", fields)
    assert generate.main(["--check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"{name} is out of date; run python -m flux_hotswap.tools.schema" for name in drifted
    ]
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_a_missing_file_is_drift_and_is_written(copy: Path) -> None:
    path = copy / "prediction" / "schema.json"
    text = path.read_bytes()
    path.unlink()
    assert generate.main(["--check"]) == 1
    assert not path.exists()
    assert generate.main([]) == 0
    assert path.read_bytes() == text


def test_text_around_the_blocks_is_kept(copy: Path) -> None:
    path = copy / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text("before\n" + text + "after\n", encoding="utf-8")
    assert generate.main(["--check"]) == 0
    path.write_text(text.replace("`num_outputs`", "`outputs`"), encoding="utf-8")
    assert generate.main([]) == 0
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    ["", "<!-- a: generated -->", "<!-- /a -->", "<!-- /a --> <!-- a: generated -->"],
    ids=["neither", "no end", "no start", "end before start"],
)
def test_missing_markers(text: str) -> None:
    with pytest.raises(ValueError, match="the markers <!-- a: generated --> and <!-- /a -->"):
        generate.replace_block(text, "a", "new")


def test_block() -> None:
    text = "1\n<!-- a: generated -->\nold\n<!-- /a -->\n2"
    new = "1\n<!-- a: generated -->\nnew\n<!-- /a -->\n2"
    assert generate.replace_block(text, "a", "new") == new
    assert generate.replace_block(new, "a", "new") == new


# The OpenAPI document


def test_document() -> None:
    committed = json.loads((ROOT / "prediction" / "schema.json").read_text(encoding="utf-8"))
    assert committed == generate.openapi()
    assert committed["openapi"].startswith("3.0.")
    assert committed["components"]["schemas"]["Output"] == {
        "title": "Output",
        "type": "array",
        "items": {"type": "string", "format": "uri"},
    }


def test_input_object() -> None:
    names = [row["name"] for row in CONTRACT]
    names.insert(names.index("lora_scale"), "lora")
    assert list(INPUT["properties"]) == names
    assert [value["x-order"] for value in INPUT["properties"].values()] == list(range(21))
    assert INPUT["required"] == ["prompt"]
    assert INPUT["additionalProperties"] is False


@pytest.mark.parametrize("row", CONTRACT, ids=lambda row: row["name"])
def test_property(row: dict[str, Any]) -> None:
    ours = INPUT["properties"][row["name"]]
    text = row["type"] in ("uri", "enum")
    assert ours["type"] == ("string" if text else row["type"])
    assert ours.get("format") == ("uri" if row["type"] == "uri" else None)
    assert ours.get("enum") == row.get("choices")
    assert ours.get("default") == row["default"]
    assert ours.get("nullable", False) is not row["required"]
    assert ours["description"]
    if row["name"] != "seed":
        assert (ours.get("minimum"), ours.get("maximum")) == (
            row.get("minimum"),
            row.get("maximum"),
        )
    known = {"type", "title", "description", "x-order", "format", "enum", "default", "minimum"}
    assert set(ours) <= known | {"maximum", "nullable"}


def test_lora_property() -> None:
    ours = INPUT["properties"]["lora"]
    assert ours["type"] == "string"
    assert ours["x-aliases"] == ["replicate_weights", "lora_weights"]
    assert "default" not in ours


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_readme_row(field: Any) -> None:
    """The table has one row a field, and no text breaks out of its cell."""
    rows = [row for row in generate.fields_table().splitlines() if f"| `{field.name}` |" in row]
    assert len(rows) == 1
    assert rows[0].count("|") == 5
    assert rows[0].endswith(f"| {field.help} |")
