"""A process of its own that loads one model in int8; the tests race it and fill its disk.

`python fast_process.py MODELS FILE GO [full]`: says "ready", waits for the file GO, then prints how
often it quantised, a digest of all weights, and its warnings, as one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from runtime import inside


def main(models: Path, file: str, go: Path, *, full: bool) -> None:
    inside.start("--cpu", models=models)
    loader, convert = inside.pack("engine.models"), inside.pack("ops.checkpoint.convert")
    import torch

    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    counted = Counted(convert.convert)
    convert.convert = counted
    if full:  # the disk looks empty and fills up while it is written
        cache = inside.pack("engine.kept")
        usage = cache.shutil.disk_usage
        cache.shutil.disk_usage = lambda path: usage(path)._replace(free=2**50)
    say("ready")
    while not go.exists():
        time.sleep(0.01)
    with torch.inference_mode():
        patcher, _ = loader.load_fast(models / "diffusion_models" / file, modulation=False)
        digest = hashlib.sha256()
        for name, tensor in sorted(patcher.model.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    found = {"quantised": counted.calls, "digest": digest.hexdigest(), "warnings": warnings.texts}
    say(json.dumps(found))


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self.function(*arguments, **named)


class Warnings(logging.Handler):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), full="full" in sys.argv[4:])
