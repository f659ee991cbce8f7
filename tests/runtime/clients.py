"""The hosted service's own clients, which the tests call our API with. Standard library only.

The stable one for Python lies in `.venv`. Here are those that cannot: the coming one for Python,
which has the same name, and that for node.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .environment import RUNTIME, VENV, Say, SetupError, locked, pip, run_quietly, venv_python

# What it needs beside these, pydantic and httpx, it finds in `.venv`.
PYTHON2_PACKAGES = ("replicate==2.0.0b4", "distro==1.9.0", "sniffio==1.3.1")
PYTHON2 = RUNTIME / "replicate-python-2.0.0b4"
NODE_PACKAGE = "replicate@1.4.0"
NODE = RUNTIME / "replicate-node-1.4.0"
NODE_ENTRY = NODE / "node_modules" / "replicate" / "index.js"


def ensure_clients(say: Say) -> None:
    """Install the clients that are missing; that for node only where node and npm are."""
    ensure(PYTHON2, PYTHON2 / "replicate", _install_python2, say)
    if shutil.which("node") and shutil.which("npm"):
        ensure(NODE, NODE_ENTRY, _install_node, say)


def find_python2() -> Path:
    """The folder that `import replicate` must find first to get the coming client.

    Raises:
        SetupError: the set-up has not been run.
    """
    return found(PYTHON2, PYTHON2 / "replicate")


def find_node_client() -> Path:
    """The file that node loads the client from.

    Raises:
        SetupError: the set-up has not been run.
    """
    return found(NODE_ENTRY, NODE_ENTRY)


def found(path: Path, sign: Path) -> Path:
    """`path`, if the file `sign` is there.

    Raises:
        SetupError: the set-up has not been run.
    """
    if not sign.exists():
        raise SetupError(f"{path} is missing: run `python3 dev.py test` once to set it up.")
    return path


def ensure(folder: Path, sign: Path, install: Callable[[Path], None], say: Say) -> None:
    """Have `install` fill `folder`, all or nothing, unless the file `sign` is in it already."""
    with locked(RUNTIME / f"{folder.name}.lock", say):
        if sign.exists():
            return
        say(f"installing {folder.name}")
        with tempfile.TemporaryDirectory(dir=RUNTIME, prefix="install-") as scratch:
            made = Path(scratch, folder.name)
            made.mkdir()
            install(made)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)


def _install_python2(folder: Path) -> None:
    pip(venv_python(VENV), "install", "--no-deps", "--target", str(folder), *PYTHON2_PACKAGES)


def _install_node(folder: Path) -> None:
    npm = shutil.which("npm")
    assert npm is not None, "asked before"
    shell = ["cmd", "/c", npm] if os.name == "nt" else [npm]
    quiet = ("--no-audit", "--no-fund", "--omit=optional")
    command = [*shell, "install", *quiet, "--prefix", str(folder), NODE_PACKAGE]
    run_quietly(command, f"npm install {NODE_PACKAGE}", cwd=folder)
