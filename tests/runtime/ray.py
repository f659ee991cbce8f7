"""Ray, which only the cluster's tests and `dev.py cluster` use, in a folder of its own.

`.venv` stays without it, so every other test shows that nothing else needs it. Standard library
only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .environment import (
    ROOT,
    RUNTIME,
    VENV,
    Say,
    SetupError,
    clean_env,
    locked,
    pip,
    requirement_lines,
    venv_python,
)

REQUIREMENTS = ROOT / "requirements-ray.txt"
FOLDER = RUNTIME / "ray"
"""Without a version in its name: the type checker is told of it."""


def ensure_ray(say: Say) -> None:
    """Install what `.venv` lacks of it, if that has not been done."""
    lines = requirement_lines(REQUIREMENTS)
    done = FOLDER / "installed.txt"
    with locked(RUNTIME / "ray.lock", say):
        if done.exists() and done.read_text(encoding="utf-8") == "\n".join(lines):
            return
        say("installing Ray")
        python = venv_python(VENV)
        with tempfile.TemporaryDirectory(dir=RUNTIME, prefix="install-") as scratch:
            made = Path(scratch, "ray")
            pip(python, "install", "--no-deps", "--target", str(made), *_missing(python, lines))
            (made / done.name).write_text("\n".join(lines), encoding="utf-8")
            shutil.rmtree(FOLDER, ignore_errors=True)
            made.rename(FOLDER)


def ray_path() -> str:
    """The PYTHONPATH that has it and the pack.

    Raises:
        SetupError: the set-up has not been run.
    """
    if not (FOLDER / "ray").exists():
        raise SetupError(f"{FOLDER} is missing: run `python3 dev.py test` once to set it up.")
    return os.pathsep.join([str(ROOT), str(FOLDER)])


def _missing(python: Path, lines: list[str]) -> list[str]:
    """The packages, with versions, that pip would add to `.venv`."""
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
    command = [str(python), "-m", "pip", "install", *quiet, "--dry-run", "--report", "-", *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_env())
    if done.returncode:
        raise SetupError(f"pip install {' '.join(lines)} failed:\n{done.stderr.strip()}")
    found = json.loads(done.stdout)["install"]
    return [f"{each['metadata']['name']}=={each['metadata']['version']}" for each in found]
