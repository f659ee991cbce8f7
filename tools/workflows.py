"""Writes the shipped workflows and the blueprint: `python -m flux_hotswap.tools.workflows`.

`--check` shows drift.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .export import as_opened, flat, to_prompt
from .nodes_info import NodeInfo, read_nodes
from .recipes import BLUEPRINT, BLUEPRINT_ABOUT, RECIPES
from .ui import to_blueprint, to_ui

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "workflows", ROOT / "subgraphs")


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check every workflow file; returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="flux_hotswap.tools.workflows", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    check = parser.parse_args(argv).check
    expected = built(read_nodes())
    drifted = 0
    for name, text in expected.items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        drifted += 1
        if check:
            sys.stderr.write(f"{name} is out of date; run python -m flux_hotswap.tools.workflows\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    strays = {
        _relative(path) for folder in FOLDERS for path in folder.rglob("*.json")
    } - expected.keys()
    for name in sorted(strays):
        sys.stderr.write(f"{name} is made by no recipe; remove it\n")
    return int(bool(strays) or (check and drifted > 0))


def built(classes: dict[str, NodeInfo]) -> dict[str, str]:
    """Return the name and text of each workflow file.

    Raises:
        ValueError: a workflow does not come back as the same graph.
    """
    files: dict[str, str] = {}
    for recipe in RECIPES:
        graph = recipe.graph(classes)
        prompt, workflow = graph.to_prompt(), to_ui(graph, recipe)
        if flat(to_prompt(workflow, classes)) != as_opened(prompt):
            raise ValueError(f"{recipe.name}: the editor's file and the prompt differ")
        files[f"workflows/{recipe.name}.json"] = _text(workflow)
        files[f"workflows/api/{recipe.name}.json"] = _text(prompt)
    blueprint = to_blueprint(RECIPES[-1].graph(classes), BLUEPRINT, BLUEPRINT_ABOUT)
    files[f"subgraphs/{BLUEPRINT}.json"] = _text(blueprint)
    return files


def _text(value: object) -> str:
    # ASCII: ComfyUI 0.3.75 reads a blueprint in whatever encoding the system has.
    return json.dumps(value, indent=1) + "\n"


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
