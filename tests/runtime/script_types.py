"""The compiler that checks the types of the editor's scripts. Standard library only."""

from __future__ import annotations

import os
import shutil

from .environment import ROOT, RUNTIME, Say, locked, run_quietly

PACKAGES = ROOT / "node_modules"
COMPILER = PACKAGES / "typescript" / "bin" / "tsc"
STAMP = PACKAGES / ".flux-hotswap-packages"


def type_check(say: Say) -> list[str] | None:
    """The command that checks the scripts, its packages installed; None without node or npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    wanted = (ROOT / "package.json").read_text(encoding="utf-8")
    with locked(RUNTIME / "node_modules.lock", say):
        if not STAMP.is_file() or STAMP.read_text(encoding="utf-8") != wanted:
            say("installing what checks the scripts")
            shell = ["cmd", "/c", npm] if os.name == "nt" else [npm]
            run_quietly([*shell, "install", "--no-audit", "--no-fund"], "npm install", cwd=ROOT)
            STAMP.write_text(wanted, encoding="utf-8")
    return [node, str(COMPILER), "-p", str(ROOT / "tsconfig.json")]
