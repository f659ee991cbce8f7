"""The editor's scripts: node runs their own tests, with values from Python to agree with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from js.vectors import vectors

HERE = Path(__file__).parent
OLDEST_NODE = 20


@pytest.fixture(scope="module")
def node() -> str:
    """The path of node; without a recent one these tests wait."""
    path = shutil.which("node")
    if path is None:
        pytest.skip(f"waits for node {OLDEST_NODE} or later on this machine")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"waits for node {OLDEST_NODE} or later; this one is {said.strip()}")
    return path


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("js") / "vectors.json"
    path.write_text(json.dumps(vectors()), encoding="utf-8")
    return path


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_file(file: Path, node: str, values: Path) -> None:
    done = subprocess.run(
        [node, "--import", str(HERE / "register.mjs"), "--test", str(file)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "FLUX_HOTSWAP_VECTORS": str(values), "NODE_OPTIONS": ""},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (count,) = re.findall(r"^\W*tests (\d+)$", done.stdout, re.M)
    assert int(count) > 0, done.stdout
