"""Runs `tests/inside`, whose tests hold ComfyUI's own objects, in a process of their own.

In the process of the other tests a second ComfyUI would share torch's settings with them. All files
are in one: to import torch and ComfyUI takes longer than the tests of most of them.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest
from runtime.comfyui import find_comfyui
from runtime.environment import ROOT, clean_env

TESTS = ROOT / "tests"
FILES = sorted(path for path in (TESTS / "inside").glob("*.py") if path.stem != "conftest")


def test_there_are_files() -> None:
    assert FILES


def test_inside() -> None:
    python = str(find_comfyui().python)
    if run(python, "-c", "import pytest").returncode:
        pytest.skip(f"{python}, which runs the ComfyUI that was named, has no pytest")
    options = ("-c", str(TESTS / "pytest.ini"), "-q", "-rap")
    done = run(python, "-m", "pytest", *options, *map(str, FILES))
    line = re.compile(r"^PASSED inside/(\w+)\.py::.*\n", re.M)
    left = line.sub("", done.stdout)
    assert done.returncode == 0, left[-20_000:]
    passed, skipped = Counter(line.findall(done.stdout)), skips(left)
    # On any ComfyUI that is supported, and on any CPU, far less than a quarter of a file waits.
    idle = [path.name for path in FILES if passed[path.stem] <= 3 * skipped[path.stem]]
    assert not idle, f"most of what they test waits for something else: {idle}\n{left[-20_000:]}"


def skips(output: str) -> Counter[str]:
    """How many tests of each file were skipped."""
    found: Counter[str] = Counter()
    for count, name in re.findall(r"^SKIPPED \[(\d+)\] inside/(\w+)\.py:", output, re.M):
        found[name] += int(count)
    return found


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
