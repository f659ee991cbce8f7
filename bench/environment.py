"""The tools that only bench/ needs, in a virtual environment that sees `.venv` as well."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from common import ROOT

__all__ = ["tools_python"]

REQUIREMENTS = ROOT / "bench" / "requirements.txt"
FOLDER = ROOT / ".runtime" / "bench-venv"
STAMP = FOLDER / "stamp.txt"


def tools_python() -> Path:
    """Return the Python that has the tools; the first call installs them.

    Raises:
        CalledProcessError: pip could not install them.
    """
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text(encoding='utf-8')}"
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(FOLDER, with_pip=True, clear=True)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    # Packages that the running Python has, torch among them, are not installed again.
    shared = Path(own.strip(), "shared.pth")
    shared.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    STAMP.write_text(wanted, encoding="utf-8")
    return python
