"""Runs `tests/inside`, whose tests hold ComfyUI's own objects, each file in a process of its own.

In the process of the other tests a second ComfyUI would share torch's settings with them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from runtime.comfyui import find_comfyui
from runtime.environment import ROOT, clean_env

TESTS = ROOT / "tests"
FILES = sorted(path for path in (TESTS / "inside").glob("*.py") if path.stem != "conftest")


def test_there_are_files() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_inside(file: Path) -> None:
    python = str(find_comfyui().python)
    if run(python, "-c", "import pytest").returncode:
        pytest.skip(f"{python}, which runs the ComfyUI that was named, has no pytest")
    done = run(python, "-m", "pytest", "-c", str(TESTS / "pytest.ini"), "-q", str(file))
    assert done.returncode == 0, done.stdout[-20_000:]
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.M), done.stdout[-2000:]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=TESTS,
        env=clean_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=1800,
        check=False,
    )
