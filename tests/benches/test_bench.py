"""Benchmarks in their short form."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from runtime.environment import ROOT

from bench import gpu_kit, page
from bench.gpu import noise
from bench.gpu.stages import STAGES


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


def test_the_kit_of_the_gpu_in_its_small_form(tmp_path: Path) -> None:
    """Every stage runs on a CPU, each leaves its lines, and nothing is other than it must be."""
    target = tmp_path / "gpu_kit.json"
    command = [sys.executable, "bench/gpu_kit.py", "--small", "--output", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = page.load(target)
    wrong = [entry for entry in found["measurements"] if entry["holds"] is False]
    assert not wrong, wrong
    assert done.returncode == 0, done.stderr[-2000:]
    assert {entry["stage"] for entry in found["measurements"]} == {s.name for s in STAGES}
    lines = (tmp_path / "kit.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(found["measurements"])
    assert len(done.stdout.splitlines()) <= gpu_kit.ROWS
    (table,) = page.rendered("gpu_kit", found)
    assert len(table.rows) == len(lines)


@pytest.mark.parametrize(
    ("multiprocessors", "threads", "counted"),
    [(132, 2048, 132), (128, 1536, 96), (82, 1536, 61.5), (46, 1024, 23)],
    ids=["H100", "RTX 4090", "RTX 3090", "RTX 2080"],
)
def test_a_cards_noise_is_told_by_the_threads_that_it_holds(
    multiprocessors: int, threads: int, counted: float
) -> None:
    assert noise.grid(multiprocessors, threads) == counted


def test_the_stages_fit_into_one_command() -> None:
    assert sum(stage.seconds for stage in STAGES) <= gpu_kit.BUDGET


def test_a_stage_that_hangs_or_dies_is_a_line_of_the_kit(tmp_path: Path) -> None:
    """What it measured before stays."""
    lines = tmp_path / "kit.jsonl"
    lines.touch()
    short = [replace(stage, seconds=1) for stage in STAGES[:2]]
    gpu_kit.run(short, lines, budget=1.2)
    assert [entry["value"] for entry in gpu_kit.read(lines)][-2:] == [
        "ended after 1 s",
        "skipped: no time is left",
    ]
    gpu_kit.run_group([replace(STAGES[0], name="unknown")], 60, lines, tmp_path, small=True)
    last = gpu_kit.read(lines)[-1]
    assert last["value"].startswith("failed with 2: ")
    assert last["holds"] is False
