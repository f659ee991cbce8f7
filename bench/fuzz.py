"""Fuzz what reads strangers' bytes, guided by coverage (atheris).

    python bench/fuzz.py                         # every target for a minute
    python bench/fuzz.py picture --seconds 600   # one of them

The targets are those of tests/fuzz/targets.py. Writes bench/results/fuzz.json; an input that raised
something else than an error of the pack is printed, and belongs into tests/fuzz/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, write
from environment import tools_python

sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]  # tests/fuzz comes before this file

CHILD = "--child"


def fuzz(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Fuzz one target in a process of its own.

    Args:
        name: of the target.
        seconds: how long.
        folder: for inputs; what was found stays there.
    """
    corpus, found = folder / "corpus", folder / "found"
    for path in (corpus, found):
        path.mkdir(parents=True)
    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=4096"]
    command = [tools_python(), __file__, CHILD, name, *options, "-print_final_stats=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"-artifact_prefix={found}/", corpus],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=ROOT,
        check=False,
    )
    executions = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    if executions is None:
        raise RuntimeError(f"{name} did not run:\n{done.stderr[-3000:]}")
    inputs = sorted(path for path in found.iterdir() if not path.name.startswith("slow-unit"))
    for path in inputs:
        print(f"{name}: {path.read_bytes()!r}\n{done.stdout[-2000:]}")
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "seconds": seconds,
        "executions": int(executions[1]),
        "edges": int(coverage[-1]) if coverage else 0,
        "corpus": len(list(corpus.iterdir())),
        "findings": [path.read_bytes().hex() for path in inputs],
    }


def child(name: str, arguments: list[str]) -> None:
    """Run libFuzzer on one target until its time is over; does not return."""
    # Of the environment of the tools: not there where types are checked.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["flux_hotswap"]):
        from fuzz import targets
    corpus = Path(arguments[-1])
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], targets.TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets in turn, write the results."""
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--short", action="store_true", help="5 seconds for each")
    parser.add_argument("--output", type=Path, default=RESULTS / "fuzz.json")
    arguments = parser.parse_args()
    seconds, target = 5 if arguments.short else arguments.seconds, arguments.output
    report: dict[str, Any] = {"machine": machine("pillow"), "targets": {}}
    if target.is_file():
        report["targets"] = json.loads(target.read_text(encoding="utf-8"))["targets"]
    targets = report["targets"]
    for name in [arguments.target] if arguments.target else TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            targets[name] = fuzz(name, seconds, Path(folder))
        print(f"{name}: {targets[name]['executions']} inputs")
        write(target, report)
    return 1 if any(entry["findings"] for entry in targets.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], sys.argv[3:])
    sys.exit(main())
