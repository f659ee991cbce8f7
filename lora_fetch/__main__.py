"""`python -m lora_fetch`, from the pack's folder."""

import os
import sys
from pathlib import Path

from flux_hotswap.errors import SettingsError
from flux_hotswap.lora_fetch.cli import Report, main


def look(path: Path) -> Report:
    """Say what a file is. All but this command does without torch.

    Raises:
        SettingsError: torch is not installed.
        BadFileError: the file is not a sound one.
    """
    try:
        from flux_hotswap.ops.lora.inspect import inspect
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"inspect needs {error.name}, which this Python does not have. Run it with the Python "
            "of your ComfyUI."
        ) from error
    return inspect(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, look))
