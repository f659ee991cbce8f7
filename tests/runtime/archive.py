"""The archive that the registry would serve: what git tracks, without what `.comfyignore` names.

Standard library only.
"""

from __future__ import annotations

import fnmatch
import subprocess
import zipfile
from pathlib import Path

from .environment import ROOT, clean_env

IGNORE = ROOT / ".comfyignore"


def tracked() -> list[str]:
    """The repository's files, those that git ignores left out; also those not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=clean_env(),
    ).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def patterns() -> list[str]:
    """The lines of `.comfyignore`.

    Raises:
        ValueError: one of them is not anchored at the top, and would match at any depth.
    """
    lines = [line.strip() for line in IGNORE.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found or not all(pattern.startswith("/") for pattern in found):
        raise ValueError(f"{IGNORE.name}: every pattern must start with /")
    return found


def is_left_out(name: str) -> bool:
    """Whether a file stays out of the archive."""
    return any(
        name.startswith(pattern[1:])
        if pattern.endswith("/")
        else fnmatch.fnmatchcase(name, pattern[1:])
        for pattern in patterns()
    )


def archived() -> list[str]:
    """The files of the archive."""
    return [name for name in tracked() if not is_left_out(name)]


def build(path: Path) -> Path:
    """Write the archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in archived():
            archive.write(ROOT / name, name)
    return path
