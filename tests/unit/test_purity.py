"""The rooms of the house: what may import what, and what costs nothing to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "PIL", "comfy", "comfy_api", "transformers", "safetensors")
LIGHT = frozenset(("errors", "texts"))
MAY_IMPORT = {
    "texts": frozenset[str](),
    "errors": frozenset(("texts",)),
    "prediction": LIGHT,
    "files": LIGHT,
    "lora_fetch": LIGHT | {"files"},
    "ops": LIGHT | {"files"},
    "engine": LIGHT | {"files", "lora_fetch", "ops", "prediction"},
    "gate": LIGHT | {"files", "lora_fetch", "ops", "prediction", "engine"},
    "nodes": LIGHT | {"files", "lora_fetch", "ops", "prediction", "engine", "gate", "hosted_api"},
    "tools": LIGHT | {"ops", "prediction"},
    "hosted_api": LIGHT | {"files", "lora_fetch", "prediction"},
}
"""Room to the rooms it may import; a room is a folder, or a file beside the folders."""

COMFY = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server"}
NO_COMFY = ("texts", "errors", "prediction", "files", "lora_fetch", "ops", "tools", "hosted_api")
NO_TORCH = ("texts", "errors", "prediction", "files", "lora_fetch", "gate", "tools", "hosted_api")
BARE = ("texts", "errors", "prediction")


def modules(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py")) or [ROOT / f"{room}.py"]
    assert found[0].is_file(), room
    return found


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
    """Yield the top package of every import in a file; a room of the pack by its own name."""
    depth = len(path.relative_to(ROOT).parts) - 1
    for dots, name in imported(path):
        if dots == 0 or dots == depth + 1:  # absolute, or from the pack's root
            yield name.partition(".")[0]
        else:
            assert dots <= depth, f"{path}: import from above the pack"
            yield path.relative_to(ROOT).parts[0]


def wrong(room: str, banned: set[str]) -> dict[str, set[str]]:
    return {str(path): found for path in modules(room) if (found := set(needs(path)) & banned)}


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


def test_every_room_has_a_rule() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "dev", "flux_hotswap"}
    assert folders | files == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows(room: str) -> None:
    assert not wrong(room, set(MAY_IMPORT) - MAY_IMPORT[room] - {room})


@pytest.mark.parametrize("room", NO_COMFY)
def test_no_comfyui(room: str) -> None:
    assert not wrong(room, COMFY)


@pytest.mark.parametrize("room", NO_TORCH)
def test_no_torch(room: str) -> None:
    assert not wrong(room, {"torch", "numpy"})


@pytest.mark.parametrize("room", BARE)
def test_the_standard_library_only(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room} | sys.stdlib_module_names
    assert not wrong(room, {top for path in modules(room) for top in needs(path)} - allowed)


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if room != "tools"])
def test_rooms_name_each_other_relatively(room: str) -> None:
    """Inside ComfyUI the pack is a package under another name; `import ops` would miss it."""
    absolute = {
        (str(path), name)
        for path in modules(room)
        for dots, name in imported(path)
        if dots == 0
        and path.name != "__main__.py"
        and name.partition(".")[0] in {*MAY_IMPORT, "flux_hotswap"}
    }
    assert not absolute


@pytest.mark.parametrize("room", ["prediction", "files", "lora_fetch"])
def test_importing_leaves_the_heavy_ones_out(room: str) -> None:
    names = [
        "flux_hotswap."
        + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in modules(room)  # the program too, which takes torch for one command alone
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


def test_the_page_shows_the_same_rule() -> None:
    """`docs/development.md` has a row for each room: what it holds, and what it may import."""
    page = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)/?(?:\.py)?` \| [^|]+ \| ([^|]*) \|$", page, re.M)
    told = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows}
    assert {room: told.get(room) for room in MAY_IMPORT} == {
        room: set(rooms - LIGHT) for room, rooms in MAY_IMPORT.items()
    }


def test_ray_is_an_extra_of_the_cluster_alone() -> None:
    rooms = [room for room in MAY_IMPORT if (ROOT / room).is_dir()]
    found = [path for room in rooms for path in modules(room) if "ray" in set(needs(path))]
    assert found
    assert {path.parent for path in found} == {ROOT / "hosted_api" / "cluster"}
