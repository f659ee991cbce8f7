"""Start ComfyUI's main.py: `python launch.py COMFYUI_DIR [arguments]`. Standard library only.

Runs inside the ComfyUI process, before it.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

import rescue


def _die_with_parent() -> None:
    """End this process when the one that started it is gone: its end of our stdin closes."""

    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Become `python main.py [arguments]` in the ComfyUI folder."""
    folder = os.path.abspath(sys.argv[1])  # noqa: PTH100 - pathlib would resolve links
    sys.path[0] = folder  # instead of the tests' folder, whose modules must not be seen here
    sys.argv = [os.path.join(folder, "main.py"), *sys.argv[2:]]  # noqa: PTH118
    os.chdir(folder)
    rescue.install()
    _die_with_parent()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
