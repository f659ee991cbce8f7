"""Benchmarks in their short form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runtime.environment import ROOT

from bench import page


@pytest.mark.skipif(
    sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK),
    reason="memory is measured through Linux's /proc",
)
def test_cost_of_a_prompt(tmp_path: Path) -> None:
    """Both graphs draw, and the parts that were measured get their tables."""
    target = tmp_path / "cost.json"
    command = [sys.executable, "bench/cost.py", "--short", "--only", "prompt"]
    done = subprocess.run(
        [*command, "--output", str(target)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = page.load(target)
    assert found["prompt"]["again"]["nodes_that_run"] == {"ours": 0, "stock": 0}
    assert {"SamplerCustomAdvanced", "VAEDecode"} <= set(found["prompt"]["nodes"]["stock"])
    assert {"FluxHotswapPrompt", "FluxHotswapSave"} <= set(found["prompt"]["nodes"]["ours"])
    assert found["prompt"]["peak_mb"]["median"]["ours"] > 100
    assert len(page.rendered("cost", found)) == 3


def test_the_short_form_prints_its_table_and_leaves_the_results() -> None:
    """The whole way of the command, with the fastest benchmark."""
    before = {path: path.read_bytes() for path in [*page.RESULTS.glob("*"), page.PAGE]}
    command = [sys.executable, "dev.py", "bench", "--short", "fetch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = page.load(ROOT / ".runtime" / "bench" / "fetch.json")
    assert found["setup"]["size_mib"] == 8
    (table,) = page.rendered("fetch", found)
    assert page.plain(table) in done.stdout
    assert f"{found['open']['ours']['mb_per_second']:.0f} MB/s" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
