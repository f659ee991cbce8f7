"""Stages of the kit: `python -m bench.gpu STAGE ...`, started by `bench/gpu_kit.py`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .stages import STAGES

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))


def main() -> None:
    """Run the stages that are named."""
    from .kit import Kit

    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=[stage.name for stage in STAGES])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    for stage in STAGES:
        if stage.name in options.stages:
            about = (options.small, options.lines, options.scratch, deadline)
            stage.run(Kit(stage.name, *about, stage.arguments))


if __name__ == "__main__":
    main()
