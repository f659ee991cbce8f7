"""Run a script that ends with its parent: `python child.py SCRIPT [arguments]`. Alone in a process.

The parent holds the other end of standard input; the system closes it when the parent dies, however
that happens. Nothing of the pack is imported here.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def main() -> None:
    """Become `python SCRIPT [arguments]` in the script's folder."""
    script = Path(sys.argv[1])
    sys.argv = [str(script), *sys.argv[2:]]
    sys.path[0] = str(script.parent)
    os.chdir(script.parent)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
