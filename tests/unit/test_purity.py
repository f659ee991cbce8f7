"""What may import what: prediction is pure, and the arrows between folders go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "PIL", "comfy", "comfy_api", "transformers", "safetensors")
FOLDERS = ("prediction", "ops", "nodes", "lora_fetch", "workflows")


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (dots, dotted name) of every import in a file, those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.level, ".".join(filter(None, (node.module, alias.name)))


def needs(path: Path) -> Iterator[str]:
    """Yield the top package of every import in a file; a pack's folder by its own name."""
    depth = len(path.relative_to(ROOT).parts) - 1
    for dots, name in imported(path):
        if dots == 0 or dots == depth + 1:  # absolute, or from the pack's root
            yield name.partition(".")[0]
        else:
            assert dots <= depth, f"{path}: import from above the pack"
            yield path.relative_to(ROOT).parts[0]


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\n"
        "from . import a\n"
        "from ..ops.noise import b\n"
        "def f():\n    import torch\n    from json import loads\n",
        encoding="utf-8",
    )
    assert sorted(imported(path)) == [
        (0, "json.loads"),
        (0, "os.path"),
        (0, "torch"),
        (1, "a"),
        (2, "ops.noise.b"),
    ]


@pytest.mark.parametrize("path", modules("prediction"), ids=lambda path: path.name)
def test_prediction_needs_the_standard_library_only(path: Path) -> None:
    for top in needs(path):
        assert top == "prediction" or top in sys.stdlib_module_names
    assert {dots for dots, _ in imported(path)} <= {0, 1}
    assert "prediction" not in {name.partition(".")[0] for dots, name in imported(path) if not dots}


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("ops", {"prediction", "nodes", "lora_fetch", "workflows", "comfy", "comfy_api"}),
        ("lora_fetch", {"torch", "numpy", "ops", "nodes", "comfy", "comfy_api", "folder_paths"}),
        ("prediction", {"ops", "nodes", "lora_fetch", "workflows"}),
    ],
)
def test_arrows(folder: str, banned: set[str]) -> None:
    assert modules(folder) or folder == "lora_fetch"
    wrong = {path.name: found for path in modules(folder) if (found := set(needs(path)) & banned)}
    assert not wrong


@pytest.mark.parametrize("folder", ["prediction", "ops", "nodes", "lora_fetch"])
def test_folders_name_each_other_relatively(folder: str) -> None:
    """Inside ComfyUI the pack is a package under another name; `import ops` would miss it."""
    absolute = {
        (path.name, name)
        for path in modules(folder)
        for dots, name in imported(path)
        if dots == 0 and name.partition(".")[0] in FOLDERS
    }
    assert not absolute


@pytest.mark.parametrize(
    "folder", [folder for folder in ("prediction", "lora_fetch") if modules(folder)]
)
def test_importing_leaves_the_heavy_ones_out(folder: str) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in modules(folder)
    ]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"sys.stdout.write(' '.join(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
