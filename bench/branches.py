"""Branch coverage of `prediction/`, `files/` and `lora_fetch/` by their own tests.

    python bench/branches.py

Runs their tests that need no ComfyUI once, child processes included, and writes
bench/results/branches.json. Fails when a line or a branch of these folders was not run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, write
from environment import tools_python

FOLDERS = ("prediction", "files", "lora_fetch")
TESTS = ("tests/unit", "tests/fetch", "tests/faults", "tests/ops", "tests/api/unit")
SETTINGS = f"""
[run]
branch = True
parallel = True
patch = subprocess
source = {",".join(FOLDERS)}
data_file = {{}}/data
"""


def measure(folder: Path) -> dict[str, Any]:
    """Run the tests under coverage; its report as JSON.

    Args:
        folder: for its data.
    """
    settings, report = folder / "settings.ini", folder / "report.json"
    settings.write_text(SETTINGS.format(folder), encoding="utf-8")
    coverage = [tools_python(), "-m", "coverage"]
    tests = ["-m", "pytest", "-c", "tests/pytest.ini", "-q", *TESTS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COVERAGE_RCFILE": str(settings)}
    subprocess.run([*coverage, "run", *tests], cwd=ROOT, env=environment, check=True)
    # The data of processes that a test killed may be cut short; they are left out.
    for command in (["combine", "--quiet"], ["json", "--quiet", "-o", report]):
        subprocess.run([*coverage, *command], cwd=ROOT, env=environment, check=False)
    return json.loads(report.read_text(encoding="utf-8"))


def main() -> int:
    """Measure, print what is missing, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=RESULTS / "branches.json")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    missing = {
        name: {"lines": entry["missing_lines"], "branches": entry["missing_branches"]}
        for name, entry in found["files"].items()
        if entry["missing_lines"] or entry["missing_branches"]
    }
    totals = found["totals"]
    keys = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    report = {
        "machine": machine("pytest"),
        "tests": list(TESTS),
        "files": len(found["files"]),
        **{key: totals[key] for key in keys},
        "excluded_lines": totals["excluded_lines"],
        "missing": missing,
    }
    write(output, report)
    for name, entry in missing.items():
        print(f"{name}: {entry}")
    print(f"{totals['covered_branches']} of {totals['num_branches']} branches")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
