"""What the pack costs ComfyUI at its start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runtime.comfyui import find_comfyui
from runtime.environment import ROOT

PROBE = Path(__file__).with_name("imports.py")


def test_nothing_heavy_is_imported_before_a_node_runs() -> None:
    """On top of what ComfyUI has loaded, the pack brings the standard library at most."""
    comfyui = find_comfyui()
    command = [comfyui.python, PROBE, comfyui.path, ROOT, ROOT / "tests"]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    brought = {name.partition(".")[0] for name in found["modules"]} - sys.stdlib_module_names
    assert brought == set()
    assert "FluxHotswapInputs" in found["nodes"]
