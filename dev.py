"""Run, try and check flux-hotswap. Needs Python 3.10 or later and nothing else.

    python3 dev.py demo      draw a picture through a real ComfyUI, on this machine, without a GPU
    python3 dev.py serve     leave that ComfyUI open, graph editor included
    python3 dev.py api       answer as the hosted model does, on port 5000
    python3 dev.py cluster   the same from two ComfyUIs that Ray keeps up
    python3 dev.py plan      print what a request means, run nothing
    python3 dev.py test      run all tests; further arguments go to pytest
    python3 dev.py check     formatting, lint, types, generated files
    python3 dev.py bench     list the benchmarks; with a name, measure
    python3 dev.py pictures  draw the thumbnails and the help pages' pictures anew
    python3 dev.py train     train the small FLUX that the demo draws with: some hours
    python3 dev.py sheets    draw the sheets of docs/drawing.md with it

The first run sets up `.venv` and `.runtime` beside this file; later ones start at once.
COMFYUI_DIR names a ComfyUI to use instead of our own, COMFYUI_PYTHON the Python that runs it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TESTS = ROOT / "tests"


def say(text: str) -> None:
    """Tell the user how it goes; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def set_up() -> Path:
    """Make everything that is missing; the Python of `.venv`."""
    from runtime import comfyui, environment, models

    python = environment.ensure_tools(say)
    comfyui.ensure_comfyui(say)
    models.ensure_small_models(say)
    return python


def plan(argv: list[str]) -> int:
    """Print the plan of a request."""
    import io

    from runtime import environment

    from flux_hotswap.tools.plan import main as plan_main

    text = sys.stdin.read() if "-" in argv else None
    sys.stdin = io.StringIO(text or "")
    try:
        return plan_main(argv)
    except ModuleNotFoundError:  # Pillow, which measures an image, is not in this Python
        python = environment.ensure_tools(say)
        command = [str(python), "-m", "flux_hotswap.tools.plan", *argv]
        return run(command, stdin=text, paths=True)


def demo(argv: list[str]) -> int:
    """Check the request, set up, draw."""
    import json

    from runtime import demo as drawing

    from flux_hotswap.errors import HotswapError

    parser = argparse.ArgumentParser(prog="dev.py demo", description=demo.__doc__)
    drawing.add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        request = drawing.load_request(arguments.input)
    except HotswapError as error:
        say(str(error))
        return drawing.BAD_REQUEST
    python = set_up()
    options = ["--keep", str(arguments.keep)]
    options += ["--json"] if arguments.json else []
    options += ["--input", "-"] if arguments.input else []
    command = [str(python), "-m", "runtime.demo", *options]
    return run(command, stdin=json.dumps(request), paths=True, keep_secrets=True)


def serve(argv: list[str]) -> int:
    """Start ComfyUI with this pack and keep it open."""
    from runtime import models
    from runtime.comfyui import find_comfyui
    from runtime.environment import RUNTIME
    from runtime.server import ComfyServer

    parser = argparse.ArgumentParser(prog="dev.py serve", description=serve.__doc__)
    parser.add_argument("--port", type=int, default=8188, help="0 for any free one")
    arguments = parser.parse_args(argv)
    set_up()
    comfyui = find_comfyui()
    choice = models.choose_models(comfyui, "dev")
    say(choice.report)
    base = RUNTIME / ("serve" if not choice.real else "serve-real")
    server = ComfyServer(
        comfyui, port=arguments.port, base=base, keep_secrets=True, **choice.server
    )
    with server:
        say(f"ComfyUI {comfyui.version} is open at {server.url}; Ctrl-C ends it")
        say(f"its log: {server.log_path}")
        try:
            status = server.wait()
        except KeyboardInterrupt:
            say("\nstopping")
            return 0
        say(f"ComfyUI ended (exit {status})\n{server.log_tail()}")
        return 1


def api(argv: list[str]) -> int:
    """Serve the hosted model's API; options go to `python -m hosted_api`."""
    python = set_up()
    command = [str(python), "-m", "runtime.api", *argv]
    return run(command, paths=True, keep_secrets=True)


def cluster(argv: list[str]) -> int:
    """Serve that API from two ComfyUIs on a Ray cluster of this machine; options as for `api`."""
    from runtime.ray import FOLDER, ensure_ray

    python = set_up()
    ensure_ray(say)
    words = ["-m", "runtime.api", "--workers", "ray", "--replicas", "2", *argv]
    return run([str(python), *words], paths=True, keep_secrets=True, more=[FOLDER])


def test(argv: list[str]) -> int:
    """Run pytest on the tests that `argv` names; on all of them, in two processes, without it."""
    from runtime.browser import ensure_browser
    from runtime.clients import ensure_clients
    from runtime.frontend import ensure_newest
    from runtime.ray import ensure_ray
    from runtime.s3 import ensure_s3

    python = set_up()
    ensure_browser(say)
    ensure_newest(say)
    ensure_clients(say)
    ensure_ray(say)
    ensure_s3(say)
    pytest = [str(python), "-m", "pytest", "-c", str(TESTS / "pytest.ini")]
    if not argv:
        return test_all(pytest)
    named = any(not word.startswith("-") and Path(word.split("::")[0]).exists() for word in argv)
    return run([*pytest, *argv, *([] if named else [str(TESTS)])])


def test_all(pytest: Sequence[str]) -> int:
    """Run the tests of servers and of pictures, and beside them all others, told last.

    Each takes about half of the time, and half of the cores: threads of both on every core would
    wait for each other longer than they work.
    """
    import tempfile

    from runtime.environment import clean_env

    served = [str(TESTS / name) for name in ("server", "drawn", "api")]
    others = [*(f"--ignore={folder}" for folder in served), str(TESTS)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2))}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
        beside = subprocess.Popen(
            [*pytest, *others], stdout=told, stderr=subprocess.STDOUT, env=threads | clean_env()
        )
        try:
            status = run([*pytest, *served], defaults=threads)
        finally:
            # Its own end: a Ctrl-C in the terminal reaches it too.
            others_status = beside.wait()
        told.seek(0)
        say("--- the tests of all else ---")
        print(told.read(), end="", flush=True)
    return status or others_status


def check(argv: list[str]) -> int:
    """Run every check, and say at the end which failed."""
    argparse.ArgumentParser(prog="dev.py check", description=check.__doc__).parse_args(argv)
    from runtime import environment
    from runtime.ray import ensure_ray
    from runtime.script_types import type_check

    python = str(environment.ensure_tools(say))
    ensure_ray(say)
    environment.link_package()
    checks = {
        "format": ["ruff", "format", "--check", "."],
        "lint": ["ruff", "check", "."],
        "types": ["pyright"],
        "generated schema": ["flux_hotswap.tools.schema", "--check"],
        "generated workflows": ["flux_hotswap.tools.workflows", "--check"],
        "generated locales": ["flux_hotswap.tools.locales", "--check"],
        "generated numbers": ["bench.page", "--check"],
    }
    failed = []
    for name, words in checks.items():
        say(f"--- {name} ---")
        if run([python, "-m", *words], cwd=ROOT):
            failed.append(name)
    say("--- types of the scripts ---")
    command = type_check(say)
    if command is None:
        say("skipped: waits for node and npm on this machine")
    elif run(command, cwd=ROOT):
        failed.append("types of the scripts")
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def bench(argv: list[str]) -> int:
    """Measure ours and the peer's, and write the page of numbers."""
    from runtime.environment import RUNTIME

    from bench import command

    return command.main(argv, set_up=set_up, run=run, scratch=RUNTIME / "bench")


def pictures(argv: list[str]) -> int:
    """Draw the pictures that the pack ships."""
    from runtime.browser import ensure_browser
    from runtime.frontend import ensure_newest

    python = set_up()
    ensure_browser(say)
    ensure_newest(say)
    return run([str(python), "-m", "runtime.pictures", *argv], paths=True)


def train(argv: list[str]) -> int:
    """Train the small FLUX, or go on where it was stopped."""
    from runtime.comfyui import find_comfyui
    from runtime.environment import RUNTIME

    python = set_up()
    # glibc would give the memory of every step back and clear it for the next, a third of the time;
    # threads that sleep between two products, as those of the tests do, cost another third.
    os.environ |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
    os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
    words = ["-m", "mini_flux.learn", str(find_comfyui().path), str(RUNTIME / "learn")]
    return run([str(python), *words, *argv], paths=True)


def sheets(argv: list[str]) -> int:
    """Draw the sheets of the page of drawings."""
    python = set_up()
    return run([str(python), "-m", "runtime.sheets", *argv], paths=True)


def run(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    paths: bool = False,
    keep_secrets: bool = False,
    cwd: Path | None = None,
    more: Sequence[Path] = (),
    defaults: Mapping[str, str] | None = None,
) -> int:
    """Run a command in the foreground; its exit status.

    Args:
        command: what to run.
        stdin: text for its standard input.
        paths: whether it may import the repository and the tests.
        keep_secrets: whether it may see model hub tokens.
        cwd: where it runs, the current directory if not given.
        more: folders beside these that it may import from.
        defaults: of environment variables that are not set.
    """
    from runtime.environment import clean_env

    env = dict(defaults or {}) | clean_env(keep_secrets=keep_secrets)
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(map(str, [TESTS, ROOT, *more]))
    try:
        return subprocess.run(
            command, input=stdin, text=True, encoding="utf-8", env=env, cwd=cwd, check=False
        ).returncode
    except KeyboardInterrupt:
        return 130


COMMANDS = {
    "demo": demo,
    "serve": serve,
    "api": api,
    "cluster": cluster,
    "plan": plan,
    "test": test,
    "check": check,
    "bench": bench,
    "pictures": pictures,
    "train": train,
    "sheets": sheets,
}


def main(argv: list[str]) -> int:
    """Run the sub-command that `argv` starts with."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    command = COMMANDS.get(argv[0])
    if command is None:
        say(f"dev.py: no command {argv[0]!r}; there are {', '.join(COMMANDS)}")
        return 2
    sys.path[:0] = [str(TESTS), str(ROOT)]
    try:
        return command(argv[1:])
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        # What the set-up and the server raise says what to do; a traceback would bury it.
        if type(error).__module__.partition(".")[0] != "runtime":
            raise
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
