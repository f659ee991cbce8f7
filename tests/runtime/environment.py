"""Make the Python environments of the runtime: venv and pinned packages. Standard library only.

torch goes in first and alone, pinned, and every later step is held to it by a constraints file:
left to itself pip answers a plain `torch` with the newest CUDA build and gigabytes of libraries.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".runtime"
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
OLDEST_PYTHON = (3, 10)
STAMP = "flux-hotswap-stamp.json"

Say = Callable[[str], None]


class SetupError(RuntimeError):
    """A step of the set-up failed; the message names the step and the remedy."""


def check_python() -> None:
    """Refuse a Python that the packages do not support."""
    if sys.version_info < OLDEST_PYTHON:
        have = ".".join(map(str, sys.version_info[:3]))
        want = ".".join(map(str, OLDEST_PYTHON))
        raise SetupError(f"Python {have} is too old: run dev.py with Python {want} or later.")


def venv_python(venv: Path) -> Path:
    """The interpreter of a venv on this system, there or not."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pinned(name: str, requirements: Path = REQUIREMENTS) -> str:
    """The line `name==version` of a requirements file."""
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if line.partition("==")[0].strip() == name:
            return line.strip()
    raise SetupError(f"{requirements} does not pin {name}.")


def ensure_tools(say: Say) -> Path:
    """Make `.venv` with everything that tests and checks need; at once when it is already there."""
    check_python()
    return ensure_venv(VENV, requirement_lines(REQUIREMENTS), say)


def link_package() -> None:
    """Make this folder reachable as `flux_hotswap` for the type checker, which runs no code."""
    folder = RUNTIME / "package"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "flux_hotswap"
    if not link.is_symlink():
        link.symlink_to(Path("..", ".."), target_is_directory=True)


def requirement_lines(path: Path) -> list[str]:
    """The requirements in a file, without comments, without what is installed on its own."""
    apart = {"torch", "torchvision", "torchaudio"}
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and project(line) not in apart]


def ensure_venv(venv: Path, requirements: list[str], say: Say) -> Path:
    """Make `venv` hold our torch and `requirements`, or return at once when its stamp says so.

    The stamp is written last, so an interrupted install is taken up again: pip keeps what is in.
    """
    python = venv_python(venv)
    stamp = venv / STAMP
    wanted = _fingerprint(requirements)
    with locked(RUNTIME / f"{venv.name}.lock", say):
        if python.is_file() and _read(stamp) == wanted:
            return python
        stamp.unlink(missing_ok=True)
        _install_all(venv, python, requirements, say)
        stamp.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return python


def _install_all(venv: Path, python: Path, requirements: list[str], say: Say) -> None:
    torch, torchvision = pinned("torch"), pinned("torchvision")
    say(f"[1/5] making {venv}")
    _make_venv(venv, python)
    say(f"[2/5] installing {torch}")
    pip(python, "install", torch)
    say(f"[3/5] installing {torchvision}")
    pip(python, "install", "--no-deps", torchvision)
    say(f"[4/5] installing {len(requirements)} packages")
    with tempfile.TemporaryDirectory() as scratch:
        constraints, wanted = Path(scratch, "constraints.txt"), Path(scratch, "requirements.txt")
        constraints.write_text(f"{torch}\n{torchvision}\n", encoding="utf-8")
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        pip(python, "install", "-c", str(constraints), "-r", str(wanted))
    say("[5/5] checking that torch starts")
    run_quietly(
        [str(python), "-c", "import torch, numpy; torch.zeros(1).numpy()"], "starting torch"
    )


def _make_venv(venv: Path, python: Path) -> None:
    """Make the venv, anew when what lies there cannot run (interrupted, or its Python is gone)."""
    if python.is_file() and _runs_this_python(python):
        return
    shutil.rmtree(venv, ignore_errors=True)
    try:
        run_quietly([sys.executable, "-m", "venv", str(venv)], "making the venv")
    except SetupError as error:
        remedy = "On Debian and Ubuntu, the package python3-venv is needed."
        raise SetupError(f"{error}\n{remedy}") from error


def _runs_this_python(python: Path) -> bool:
    code = f"import sys, pip; print(sys.version_info[:2] == {tuple(sys.version_info[:2])})"
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=False, env=clean_env()
    )
    return done.stdout.strip() == "True"


def pip(python: Path, *arguments: str) -> None:
    """Run pip, silent unless it fails."""
    shown = " ".join(["pip", *arguments])
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
    run_quietly([str(python), "-m", "pip", arguments[0], *quiet, *arguments[1:]], shown)


def run_quietly(command: list[str], what: str, cwd: Path | None = None) -> None:
    """Run a command; its output is shown only if it fails.

    Raises:
        SetupError: it exited with an error.
    """
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env=clean_env(),
        cwd=cwd,
    )
    if done.returncode:
        raise SetupError(f"{what} failed (exit {done.returncode}):\n{done.stdout.strip()}")


# What a child process must not inherit: secrets that a log could show, and switches that would
# change which Python code or which model hub it uses.
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "CIVITAI_API_TOKEN")
SECRETS += ("CIVITAI_TOKEN", "REPLICATE_API_TOKEN")
_SWITCHES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTEST_ADDOPTS")


def clean_env(*, keep_secrets: bool = False) -> dict[str, str]:
    """The environment for a child process."""
    dropped = _SWITCHES if keep_secrets else (*_SWITCHES, *SECRETS)
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    # torch's threads wait for each other by spinning, which on busy cores takes ten times as long
    # as the work.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | kept


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not _try_lock(file.fileno()):
            say(f"waiting for another dev.py to finish with {path.with_suffix('').name}")
            _wait_lock(file.fileno())
        try:
            yield
        finally:
            _unlock(file.fileno())


if os.name == "nt":
    import msvcrt
    import time

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_lock(descriptor: int) -> None:
        while not _try_lock(descriptor):
            time.sleep(0.2)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _wait_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def project(requirement: str) -> str:
    """The name that a line of a requirements file starts with, in lower case."""
    for index, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:index].lower()
    return requirement.lower()


def _fingerprint(requirements: list[str]) -> dict[str, str]:
    everything = [pinned("torch"), pinned("torchvision"), *requirements]
    digest = hashlib.sha256("\n".join(everything).encode()).hexdigest()
    return {"requirements": digest, "python": ".".join(map(str, sys.version_info[:2]))}


def _read(stamp: Path) -> dict[str, str] | None:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
