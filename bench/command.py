"""`dev.py bench`: lists the benchmarks, runs them, prints their tables, writes the page of numbers.

Standard library only. A benchmark is a script beside this file that names its own file of results.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import page

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent

SHORT: dict[str, tuple[str, ...]] = {
    "save": ("--runs", "1"),
    "fetch": ("--runs", "1", "--size", "8"),
    "lora": ("--runs", "1"),
    "int8_load": ("--runs", "1"),
    "int8_lora": ("--runs", "1"),
    "int8_error": (),
    "strength": (),
    "lora_families": (),
    "traffic": (),
    "gpu_kit": ("--small",),
    "branches": (),
    "shared_store": ("--each", "2"),
    "soak_api": ("--predictions", "12", "--pause", "6"),
    "hosted_api": ("--runs", "2", "--pictures", "4"),
    "replicas": ("--runs", "2", "--pictures", "4", "--kills", "1", "--mix", "12"),
}
"""Arguments of the short form, where it is not --short."""

Run = Callable[[Sequence[str]], int]
"""Runs a command in the foreground; its exit status."""


def benches() -> dict[str, str]:
    """Return the benchmarks by name, each with the first line of its description."""
    found: dict[str, str] = {}
    for script in sorted(FOLDER.glob("*.py")):
        source = script.read_text(encoding="utf-8")
        if f"{script.stem}.json" in source:  # its own file of results
            found[script.stem] = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
    return found


def main(argv: Sequence[str], *, set_up: Callable[[], Path], run: Run, scratch: Path) -> int:
    """List or run benchmarks, or write the page alone.

    Args:
        argv: the words after `dev.py bench`.
        set_up: makes what a benchmark needs; the Python that runs it.
        run: runs a command in the foreground.
        scratch: a folder for the results of short forms.
    """
    known = benches()
    argv, more = split(argv)
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description="Measure ours and the peer's in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="name", help="what to run; without, a list")
    parser.epilog = "Words after -- go to the benchmark."
    parser.add_argument("--list", action="store_true", help="list what there is")
    parser.add_argument("--page", action="store_true", help="only write docs/numbers.md anew")
    parser.add_argument("--short", action="store_true", help="try them; neither results nor page")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    if options.page:
        return page.main([])
    if options.list or not options.names:
        show(known)
        return 0
    python = set_up()
    results = scratch if options.short else page.RESULTS
    failed = [
        name for name in dict.fromkeys(options.names)
        if not measure(name, python, run, results, more, short=options.short)
    ]  # fmt: skip
    if not options.short:
        page.main([])
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return int(bool(failed))


def show(known: dict[str, str]) -> None:
    """Print the benchmarks."""
    for name, about in known.items():
        measured = "" if (page.RESULTS / f"{name}.json").is_file() else " (not measured yet)"
        print(f"{name:15}{about}{measured}")


def split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what stands before `--` and after it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def measure(
    name: str, python: Path, run: Run, results: Path, more: Sequence[str], *, short: bool
) -> bool:
    """Run one benchmark and print its tables; whether it worked."""
    target = results / f"{name}.json"
    results.mkdir(parents=True, exist_ok=True)
    words = SHORT.get(name, ("--short",)) if short else ()
    if run([str(python), str(FOLDER / f"{name}.py"), *words, *more, "--output", str(target)]):
        return False
    report = page.load(target)
    for table in page.rendered(name, report):
        print(f"\n{page.plain(table)}")
    print(f"\n{page.where(report)}\n{target}")
    return True
