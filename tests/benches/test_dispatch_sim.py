"""The simulation of dispatch, nine minutes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from runtime.environment import ROOT

from bench import page


def simulated(target: Path) -> dict[str, Any]:
    command = [sys.executable, "bench/dispatch_sim.py", "--short", "--output", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return page.load(target)


def test_ours_loads_less_and_draws_more(tmp_path: Path) -> None:
    """What the page says of a day holds for its busiest minutes."""
    found = simulated(tmp_path / "dispatch_sim.json")
    day = found["day"]
    ours, ray = day["ours"], day["ray"]
    assert ours["model_switches"] * 3 <= ray["model_switches"]
    assert ours["drawn_a_minute"] > ray["drawn_a_minute"]
    assert ours["overtaken_at_most"] <= ours["bound"]
    assert ours["wait_of_others"]["mean"] * 2 < ours["wait_of_the_greedy"]["mean"]
    for many in ("16", "64"):
        ours, ray = found["callers"][many]["ours"], found["callers"][many]["ray"]
        switches = [each["model_switches"] + each["lora_switches"] for each in (ours, ray)]
        assert switches[0] * 3 <= switches[1]
        assert ours["drawn_a_minute"] > ray["drawn_a_minute"]
    assert [len(table.rows) for table in page.rendered("dispatch_sim", found)] == [11, 9]
