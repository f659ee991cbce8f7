"""ComfyUI and this pack in the process of a test or a benchmark, without a server."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from . import rescue
from .environment import ROOT, RUNTIME

PACK = "flux_hotswap"


def folder() -> Path:
    """The ComfyUI that COMFYUI_DIR names, or the one that `dev.py test` sets up."""
    return Path(os.environ.get("COMFYUI_DIR") or RUNTIME / "ComfyUI")


def start(*arguments: str, models: Path) -> None:
    """Make `comfy` importable, set up as `main.py` would with these command line arguments.

    Args:
        arguments: of ComfyUI, such as "--cpu".
        models: a folder that is laid out as ComfyUI's models folder is.
    """
    sys.path.insert(0, str(folder()))
    rescue.install()  # where torchvision cannot be imported
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.cli_args")
    sys.argv = before
    paths: Any = importlib.import_module("folder_paths")
    for name in ("diffusion_models", "loras", "checkpoints"):
        paths.folder_names_and_paths[name][0][:] = [str(models / name)]
    plugin("small_models").install()  # lets the core take small models


def plugin(module: str) -> Any:
    """A module of the test server's plug-in, alone."""
    name = f"flux_hotswap_test_{module}"
    path = Path(__file__).parent / "plugin" / f"{module}.py"
    return _load(importlib.util.spec_from_file_location(name, path), name)


def pack(module: str) -> Any:
    """A module of this pack, such as "engine.models", as ComfyUI would have imported it."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        _load(spec, PACK)
    return importlib.import_module(f"{PACK}.{module}")


def _load(spec: Any, name: str) -> ModuleType | Any:
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made
