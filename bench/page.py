"""Writes docs/numbers.md from bench/results. Standard library only.

`python -m bench.page` writes the page, `--check` fails where it would change.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import api_tables, tables
from bench import quality_tables as quality
from bench.cost_tables import cost
from bench.tables import Report, Table

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
RESULTS = BENCH / "results"
PAGE = ROOT / "docs" / "numbers.md"

RENDER: dict[str, Callable[[Report], Iterator[Table]]] = {
    "cost": cost,
    "save": tables.save,
    "fetch": tables.fetch,
    "lora": tables.lora,
    "int8_load": tables.int8_load,
    "int8_lora": tables.int8_lora,
    "int8_error": tables.int8_error,
    "strength": tables.strength,
    "lora_families": tables.lora_families,
    "traffic": tables.traffic,
    "gpu_kit": tables.gpu_kit,
    "hosted_api": api_tables.hosted_api,
    "replicas": api_tables.replicas,
    "dispatch_sim": api_tables.dispatch_sim,
    "soak_api": api_tables.soak_api,
    "shared_store": quality.shared_store,
    "drawing": quality.drawing,
    "branches": quality.branches,
    "mutation": quality.mutation,
    "fuzz": quality.fuzz,
    "soak": quality.soak,
}
"""In the order of the page; other results follow it, value by value."""

HEAD = """\
<!-- Written by python3 dev.py bench --page. -->

# Numbers

Ours and the peer's come from the same run, in which they took turns unless the section says that
one came after the other. Times are medians, by the clock, unless a table says otherwise. "ours /
peer" below 1 is less time or memory than the peer's, or less throughput where MB/s are compared.
"spread" is that of our runs unless it says otherwise. Peak memory is what the operating system
counts. A cell of "goal" speaks of the ratio unless it names something else.

`python3 dev.py bench` lists the benchmarks, `python3 dev.py bench NAME` runs one, prints its table
and writes this page anew. `--short` tries one in a short form and writes neither.
"""

CURRENT = "_current"
"""At the end of the name of results that came from a ComfyUI of today instead of the pinned one."""

BEFORE = "_before"
"""At the end of the name of results with the small FLUX of 2026-11-27, whose edges were ragged."""

NO_GPU = "No GPU has measured this yet. It needs one with 80 GB of memory."


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the page; returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="bench.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    options = parser.parse_args(argv)
    text = page(RESULTS)
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if options.check:
        sys.stderr.write(f"{PAGE.name} is out of date; run python3 dev.py bench --page\n")
        return 1
    PAGE.write_text(text, encoding="utf-8", newline="\n")
    return 0


def page(results: Path) -> str:
    """Return the page that the files of a folder give."""
    found = {path.stem: path for path in sorted(results.glob("*.json"))}
    ordered = [
        name for known in RENDER for name in (known, f"{known}{CURRENT}", f"{known}{BEFORE}")
    ]
    names = [*ordered, *(name for name in found if name not in ordered)]
    parts = [HEAD]
    for name in names:
        if name in found:
            parts.append(section(name, load(found[name])))
        elif name == "gpu_kit":
            parts.append(f"## {name}\n\n{about(name)}\n\n{NO_GPU}\n\n{again(name)}\n")
    return "\n".join(parts)


def load(path: Path) -> dict[str, Any]:
    """Read a file of results."""
    return json.loads(path.read_text(encoding="utf-8"))


def section(name: str, report: Report) -> str:
    """Return what the page says of one benchmark."""
    link = f"[every run](../bench/results/{name}.json)"
    texts = [f"## {name}", about(name), *(markdown(table) for table in rendered(name, report))]
    last = (where(report), again(name), f"Or look at {link}.")
    texts += [" ".join(text for text in last if text)]
    return "\n\n".join(text for text in texts if text) + "\n"


def rendered(name: str, report: Report) -> list[Table]:
    """Return the tables of one benchmark."""
    known = quality.looks if name.endswith(BEFORE) else RENDER.get(name.removesuffix(CURRENT))
    return list((known or tables.values)(report))


def about(name: str) -> str:
    """Return the first line of a benchmark's own description; nothing if it has no script."""
    if name.endswith(CURRENT):
        return f"The same as {name.removesuffix(CURRENT)}, on a ComfyUI of today."
    if name.endswith(BEFORE):
        return "The small FLUX of 2026-11-27, which was trained with things moved at random."
    script = BENCH / f"{name}.py"
    if not script.is_file():
        return ""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").splitlines()[0]


def again(name: str) -> str:
    """Return how to measure once more; nothing if there is no script."""
    if name.endswith(CURRENT):
        script = f"bench/{name.removesuffix(CURRENT)}.py"
        return f"Again: `COMFYUI_DIR=... python {script} --output bench/results/{name}.json`."
    return f"Again: `python3 dev.py bench {name}`." if (BENCH / f"{name}.py").is_file() else ""


def where(report: Report) -> str:
    """Return on what and with what it was measured, in a sentence."""
    machine: Mapping[str, Any] = report.get("machine", {})
    parts = [str(machine[key]) for key in ("device", "cpu") if machine.get(key)]
    parts += [f"{machine['cores']} cores"] if "cores" in machine else []
    parts += [str(machine["system"])] if "system" in machine else []
    rest = ("device", "cpu", "cores", "system")
    parts += [f"{key} {value}" for key, value in machine.items() if key not in rest]
    for key, value in report.get("setup", {}).items():
        if value is None or isinstance(value, dict | list):
            continue
        shown = tables.number(value) if isinstance(value, float) else str(value).partition(" (")[0]
        parts.append(f"{key.replace('_', ' ')} {shown}")
    return f"Measured on {', '.join(parts)}." if parts else ""


def markdown(table: Table) -> str:
    """Return a table for the page."""
    lines = [f"{table.title}:\n"] if table.title else []
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    lines += [f"| {' | '.join(clean(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def clean(cell: str) -> str:
    """Return a text that cannot end its cell."""
    return " ".join(cell.replace("|", "\\|").split())


def plain(table: Table) -> str:
    """Return a table for the terminal."""
    rows = [list(table.heads), *([clean(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.heads))]
    lines = [table.title] if table.title else []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
