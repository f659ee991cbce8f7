"""What the results of coverage, mutations, fuzzing and the soak say, as tables. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator

from bench.tables import Report, Table, number

__all__ = ["branches", "fuzz", "mutation", "soak"]


def branches(report: Report) -> Iterator[Table]:
    """Branch coverage."""
    rows = [
        ("branches", str(report["covered_branches"]), str(report["num_branches"])),
        ("lines", str(report["covered_lines"]), str(report["num_statements"])),
    ]
    yield Table(rows, ("what", "run by the tests", "of"), f"{report['files']} files, goal: all")


def fuzz(report: Report) -> Iterator[Table]:
    """Inputs of the fuzzer."""
    rows = [
        (
            name.replace("_", " "),
            str(found["executions"]),
            str(found["seconds"]),
            str(len(found["findings"])),
        )
        for name, found in report["targets"].items()
    ]
    title = "What was found before has been mended and is kept as a test"
    yield Table(rows, ("reader", "inputs", "seconds", "findings left"), title)


def mutation(report: Report) -> Iterator[Table]:
    """Changes of the arithmetic that a test noticed, and those that none did."""
    rows = [
        (name, str(found["mutants"]), str(found["killed"]), str(len(found["survived"])))
        for name, found in report["files"].items()
    ]
    yield Table(rows, ("file", "changes", "noticed by a test", "not"))
    reasons = [
        (name, change, reason)
        for name, found in report["files"].items()
        for change, reason in found["survived"].items()
    ]
    if reasons:
        yield Table(reasons, ("file", "change", "why no test notices it"), "Survivors")


def soak(report: Report) -> Iterator[Table]:
    """Hundreds of prompts on one server."""
    prompts = ", ".join(f"{count} {kind}" for kind, count in report["prompts"].items())
    outcomes = [(name, str(count)) for name, count in report["outcomes"].items()]
    yield Table(
        [*outcomes, ("problems", str(len(report["problems"])))], ("outcome", "count"), prompts
    )
    rows = [
        (name, *(number(report["trend"][key][end]) for end in ENDS))
        for key, name in MEASURED.items()
    ]
    heads = ("of the server", "first quarter after the warm-up", "last quarter", "per 100 prompts")
    yield Table(rows, heads)


MEASURED = {"memory_mb": "memory, MB", "open_files": "open files", "threads": "threads"}
ENDS = ("first_quarter", "last_quarter", "per_100_prompts")
