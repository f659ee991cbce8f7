"""A Chromium for the tests of the graph editor. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .environment import Say, run_quietly

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
"""No window, no graphics card, and no connection but those of the page."""


def find_browser() -> Path | None:
    """The browser on this machine, None if there is none."""
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in found if path), None)


def ensure_browser(say: Say) -> None:
    """Install Debian's Chromium where that can be done; elsewhere those tests are skipped."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if find_browser() or not is_root or not shutil.which("apt-get"):
        return
    say("installing chromium")
    run_quietly(["apt-get", "update"], "reading Debian's list of packages")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
    run_quietly(command, "installing chromium")
