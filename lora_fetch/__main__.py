"""`python path/to/lora_fetch`, or `python -m lora_fetch` in the pack's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flux_hotswap.lora_fetch.cli import Report


def look(path: Path) -> Report:
    """Say what a file is. All but this command does without torch.

    Raises:
        SettingsError: torch is not installed.
        BadFileError: the file is not a sound one.
    """
    from flux_hotswap.errors import SettingsError

    try:
        from flux_hotswap.ops.lora.inspect import inspect
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"inspect needs {error.name}, which this Python does not have. Run it with the Python "
            "of your ComfyUI."
        ) from error
    return inspect(path)


if __name__ == "__main__":
    if not __package__:  # what Python looks in then is this folder, whose modules are no packages
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    from flux_hotswap.lora_fetch.cli import main

    sys.exit(main(sys.argv[1:], os.environ, look))
