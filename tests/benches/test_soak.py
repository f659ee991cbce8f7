"""The short form of bench/soak.py: a few random prompts, a cancel, a clear, a broken download."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runtime.environment import ROOT


def test_a_short_soak(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    command = [sys.executable, ROOT / "bench" / "soak.py", "--short", "--output", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["problems"] == []
    assert report["prompts"]["valid"] == 7
    assert report["prompts"]["invalid"] == 3
    refused = [report["outcomes"].get(f"refused {when}", 0) for when in WHEN]
    assert sum(refused) == 3
    assert report["outcomes"]["files"] >= 7
    assert len(report["memory_mb"]) == len(report["open_files"]) == 13


WHEN = ("before it runs", "while it runs")
