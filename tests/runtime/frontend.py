"""The newest graph editor, beside the one that ComfyUI 0.3.75 asks for. Standard library only.

It is the package from PyPI, pinned and checked by its hash, unpacked once, and served with
ComfyUI's own `--front-end-root`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from .environment import RUNTIME, VENV, Say, SetupError, locked, pip, venv_python

PACKAGE = "comfyui-frontend-package==1.58.1"
SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
CARRIED = "comfyui_frontend_package/static/"
NEWEST = RUNTIME / f"frontend-{PACKAGE.partition('==')[2]}"


def ensure_newest(say: Say) -> Path:
    """Unpack the newest editor into `.runtime`, all or nothing; its folder."""
    with locked(RUNTIME / f"{NEWEST.name}.lock", say):
        if not (NEWEST / "index.html").is_file():
            say(f"fetching {PACKAGE}")
            with tempfile.TemporaryDirectory(dir=RUNTIME, prefix="fetch-") as scratch:
                wheel = _download(Path(scratch))
                with zipfile.ZipFile(wheel) as archive:
                    names = [name for name in archive.namelist() if name.startswith(CARRIED)]
                    archive.extractall(scratch, names)  # hash-checked above, names are relative
                shutil.rmtree(NEWEST, ignore_errors=True)
                Path(scratch, CARRIED).rename(NEWEST)
    return NEWEST


def find_newest() -> Path:
    """The folder of the newest editor that an earlier set-up left.

    Raises:
        SetupError: the set-up has not been run.
    """
    if not (NEWEST / "index.html").is_file():
        raise SetupError(f"{NEWEST} is missing: run `python3 dev.py test` once to set it up.")
    return NEWEST


def _download(folder: Path) -> Path:
    python = venv_python(VENV)
    pip(python, "download", "--no-deps", "--only-binary", ":all:", "-d", str(folder), PACKAGE)
    wheel = next(folder.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SetupError(f"{wheel.name} has SHA-256 {digest}, expected {SHA256}: try again.")
    return wheel
