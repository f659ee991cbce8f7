"""What is generated and committed is what its generator writes now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATORS = (
    "flux_hotswap.tools.schema",
    "flux_hotswap.tools.workflows",
    "flux_hotswap.tools.locales",
    "bench.page",
)


@pytest.mark.parametrize("module", GENERATORS)
def test_committed_files_are_current(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
