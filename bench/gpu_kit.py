"""What only a GPU can tell, in one run of eight minutes: noise, matmuls, errors, steps, memory.

    OUT=results python bench/gpu_kit.py    # on a GPU with 80 GB
    python bench/gpu_kit.py --small        # anywhere in a minute, to see that it works

Every stage is a process of its own, since one error of CUDA spoils all that follows, and is ended
when its time is over; --small runs all in one. Every measurement is one line of `kit.jsonl` in
$OUT, or in bench/results, on the disk before the next begins. A table comes last, with what was
predicted beside what came out. It needs torch, what ComfyUI imports, and a ComfyUI: COMFYUI_DIR,
or the one that `dev.py test` sets up, with the small FLUX that it unpacks. Writes
bench/results/gpu_kit.json too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
sys.path.append(str(ROOT))

from bench.gpu.stages import STAGES, Stage  # noqa: E402 - after the path

BUDGET = 480.0
"""Seconds of a whole run."""

LEAST = 0.4
"""A stage begins if this share of its time is left."""

PATIENCE = 1.6
"""Times its time, after which a stage is ended."""

ROWS = 40
"""Lines of the table at most; every line is in the file."""

Entry = dict[str, Any]


def run_group(
    stages: Sequence[Stage], seconds: float, lines: Path, scratch: Path, *, small: bool
) -> None:
    """Run stages in one process for some seconds; how it ended is a line unless it ended well."""
    command = [sys.executable, "-m", "bench.gpu", *(stage.name for stage in stages)]
    command += ["--seconds", str(seconds), "--lines", str(lines), "--scratch", str(scratch)]
    command += ["--small"] if small else []
    log = scratch / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return note(lines, stages[0], f"ended after {seconds:.0f} s", holds=False)
    if status:
        told = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = told[-1] if told else "nothing was said"
        note(lines, stages[0], f"failed with {status}: {reason:.300}", holds=False, log=told[-30:])
    return None


def note(lines: Path, stage: Stage, text: str, **more: Any) -> None:
    """Write a line about a stage itself."""
    entry = {"stage": stage.name, "what": stage.name, "value": text, "unit": "", "predicted": ""}
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry | {"holds": None} | more) + "\n")


def run(stages: Sequence[Stage], lines: Path, budget: float) -> None:
    """Run the stages in turn, each in its own process, as far as the budget goes."""
    end = time.monotonic() + budget
    with tempfile.TemporaryDirectory(prefix="gpu-kit-") as folder:
        for stage in stages:
            left = end - time.monotonic()
            if left < LEAST * stage.seconds:
                note(lines, stage, "skipped: no time is left")
                continue
            seconds = min(left, PATIENCE * stage.seconds)
            sys.stderr.write(f"{stage.name}: at most {seconds:.0f} s of {left:.0f} s\n")
            run_group([stage], seconds, lines, Path(folder), small=False)


def try_out(stages: Sequence[Stage], lines: Path, budget: float) -> None:
    """Run the small form of all stages in one process, which takes a fifth of the time."""
    with tempfile.TemporaryDirectory(prefix="gpu-kit-") as folder:
        run_group(stages, budget, lines, Path(folder), small=True)


def read(lines: Path) -> list[Entry]:
    """Return the measurements."""
    return [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]


def table(found: Sequence[Entry]) -> list[str]:
    """Return at most `ROWS` lines: what does not hold, then what was predicted, then the rest."""
    ranked = sorted(
        range(len(found)),
        key=lambda i: (found[i]["holds"] is not False, not found[i]["predicted"], i),
    )
    shown = sorted(ranked[: ROWS - 2])
    rows = [line_of(found[index]) for index in shown]
    left = len(found) - len(shown)
    wrong = sum(entry["holds"] is False for entry in found)
    head = f"{'':5}{'what':62}{'measured':>26}  predicted"
    tail = f"{len(found)} measurements, {wrong} not as they must be, {left} more in the file"
    return [head, *rows, tail]


def line_of(entry: Entry) -> str:
    """Return one line of the table."""
    mark = {True: "yes", False: "NO", None: ""}[entry["holds"]]
    value = f"{entry['value']} {entry['unit']}".strip()
    return f"{mark:5}{entry['what']:.60}".ljust(67) + f"{value:>26.80}  {entry['predicted']}"


def main() -> int:
    """Measure, print, write; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny tensors, also without a GPU")
    parser.add_argument("--only", choices=[s.name for s in STAGES], action="append")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="of all stages together")
    parser.add_argument("--output", type=Path, help="the file of results")
    options = parser.parse_args()
    named = os.environ.get("OUT")
    folder = options.output.parent if options.output else Path(named) if named else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder.resolve() / "kit.jsonl"
    lines.write_text("", encoding="utf-8")
    stages = [stage for stage in STAGES if not options.only or stage.name in options.only]
    (try_out if options.small else run)(stages, lines, options.seconds)
    found = read(lines)
    sys.stdout.write("\n".join(table(found)) + "\n")
    machine = {"device": card(found), "system": platform.system()}
    report = {"machine": machine, "measurements": found}
    target = options.output or folder / "gpu_kit.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["holds"] is False for entry in found))


def card(found: Sequence[Entry]) -> str:
    """Return the name of the card, if the first stage said it."""
    return next((str(entry["value"]) for entry in found if entry["what"] == "card"), "unknown")


if __name__ == "__main__":
    sys.exit(main())
