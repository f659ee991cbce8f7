"""Mutation testing of the arithmetic: does a test fail for every small change of the code?

    python bench/mutation.py                        # all of it
    python bench/mutation.py prediction/sizes.py    # one file

The changes are cosmic-ray's. Each is tried in a fork of a process that has pytest, and torch where
it is needed, imported already; the files on the disk stay as they are. Writes
bench/results/mutation.json. Fails if a change survives that bench/mutation_survivors.json does not
explain.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.abc
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, write
from environment import tools_python

VECTORS = "tests/unit/test_vectors.py"
TESTS = {
    "prediction/sizes.py": ["tests/unit/test_sizes.py", VECTORS],
    "prediction/schedule.py": ["tests/unit/test_schedule.py", VECTORS],
    "prediction/plan.py": ["tests/unit/test_plan.py", VECTORS],
    "prediction/request.py": ["tests/unit/test_request.py", "tests/unit/test_request_drawn.py"],
    "ops/int8.py": ["tests/ops/test_int8.py"],
}
"""The fast tests of each file."""

REASONS = ROOT / "bench" / "mutation_survivors.json"
CPU_SECONDS = 40
"""A test that takes longer does not end any more."""

PROFILE = "mutants"
"""Of hypothesis: the same examples in each fork, and a failing one is not made small."""

FEW = 3
"""Other operators that are tried in the place of one; all of them would take hours."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    Attributes:
        line: number of the line that changed.
        change: the line before and after.
        code: the whole file.
    """

    line: int
    change: str
    code: str


def mutants(source: str) -> list[Mutant]:
    """Return the changes of a file, without those of annotations and without doubles."""
    from cosmic_ray import plugins  # pyright: ignore[reportMissingImports]
    from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]

    seen = {_meaning(source)}
    found: list[Mutant] = []
    tried: dict[tuple[int, str], int] = {}
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments():
            continue
        family = name.partition("/")[2].split("_")[0]
        for code in _each(lambda at, kind=kind: mutate_code(source, kind(), at)):
            meaning = _meaning(code)
            line, change = _difference(source, code)
            place = (line, family)
            if meaning in seen or tried.get(place, 0) >= FEW:
                continue
            tried[place] = tried.get(place, 0) + 1
            seen.add(meaning)
            found.append(Mutant(line, change, code))
    return sorted(found, key=lambda mutant: mutant.line)


def _each(mutated: Any) -> Iterator[str]:
    occurrence = 0
    while (code := mutated(occurrence)) is not None:
        occurrence += 1
        try:
            compile(code, "mutant", "exec")
        except (SyntaxError, ValueError):
            continue
        yield code


def _meaning(code: str) -> str:
    """Return the code without annotations and the place of anything."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
    return ast.dump(tree)


def _difference(source: str, code: str) -> tuple[int, str]:
    before, after = source.splitlines(), code.splitlines()
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        if tag != "equal":
            old, new = " ".join(before[a:b]).strip(), " ".join(after[c:d]).strip()
            return a + 1, f"{old}  ->  {new}"
    return 0, ""


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other code."""

    def __init__(self, path: str, code: str) -> None:
        self.name = f"flux_hotswap.{path.removesuffix('.py').replace('/', '.')}"
        self.path, self.code = path, code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        """Answer for our module alone."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(ROOT / self.path))

    def exec_module(self, module: Any) -> None:
        """Run the other code."""
        exec(compile(self.code, str(ROOT / self.path), "exec"), module.__dict__)  # noqa: S102


def survives(path: str, mutant: Mutant) -> bool:
    """Whether the tests of a file pass with a change of it."""
    import pytest

    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        sys.meta_path.insert(0, Mutated(path, mutant.code))
        options = ["-c", "tests/pytest.ini", "-q", "-x", "--tb=no", "-p", "no:cacheprovider"]
        # What was imported before pytest could rewrite its asserts, which are not ours.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += ["--hypothesis-profile", PROFILE]
        status = 1
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                status = int(pytest.main([*options, *TESTS[path]]))
        finally:
            os._exit(1 if status else 0)
    _, ended = os.waitpid(child, 0)
    return ended == 0


def examine(path: str) -> dict[str, Any]:
    """Try the changes of one file."""
    reasons: dict[str, str] = json.loads(REASONS.read_text(encoding="utf-8")).get(path, {})
    source = (ROOT / path).read_text(encoding="utf-8")
    if not survives(path, Mutant(0, "none", source)):
        raise RuntimeError(f"the tests of {path} fail without any change")
    begun, all_of_them = time.monotonic(), mutants(source)
    left: dict[str, str] = {}
    for mutant in all_of_them:
        if survives(path, mutant):
            left[mutant.change] = reasons.get(mutant.change, "")
            print(f"{path}:{mutant.line}: {mutant.change}", flush=True)
    return {
        "mutants": len(all_of_them),
        "killed": len(all_of_them) - len(left),
        "survived": left,
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    """Examine the files in turn, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", help="all if none is named")
    parser.add_argument("--short", action="store_true", help="the smallest file only")
    parser.add_argument("--output", type=Path, default=RESULTS / "mutation.json")
    arguments = parser.parse_args()
    files = arguments.files or (["prediction/schedule.py"] if arguments.short else list(TESTS))
    target = arguments.output.resolve()
    if sys.prefix != str(tools_python().parents[1]):
        command = [tools_python(), __file__, *files, "--output", target]
        return subprocess.run(command, check=False).returncode
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    import hypothesis  # so that no fork has to
    import pytest  # noqa: F401

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        PROFILE, database=None, deadline=None, derandomize=True, phases=phases
    )
    if any(file.startswith("ops/") for file in files):
        import torch  # noqa: F401
    report = {"machine": machine("pytest"), "files": {}}
    if target.is_file():
        report["files"] = json.loads(target.read_text(encoding="utf-8"))["files"]
    for file in files:
        report["files"][file] = examine(file)
        write(target, report)
        found = report["files"][file]
        print(f"{file}: {found['killed']} of {found['mutants']} killed", flush=True)
    unexplained = [
        change
        for file in files
        for change, reason in report["files"][file]["survived"].items()
        if not reason
    ]
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
