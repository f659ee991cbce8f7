"""What the stages share: one line a measurement, the device, timing, ComfyUI in the process."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from runtime import inside

LONG_ENOUGH = 2e-3
"""Seconds of a measurement in which launching and waiting are little."""

ON_CPU = ("--cpu", "--supports-fp8-compute", "--use-pytorch-cross-attention")
"""Arguments of ComfyUI where there is no card."""


@dataclass
class Kit:
    """One stage that runs.

    Attributes:
        stage: its name.
        small: whether it is only tried, on small tensors.
        lines: the file of measurements.
        scratch: a folder that all stages of a run share.
        deadline: when its time is over, by `time.monotonic`.
        arguments: of ComfyUI on a card.
    """

    stage: str
    small: bool
    lines: Path
    scratch: Path
    deadline: float
    arguments: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where it is measured; a card by its number, as ComfyUI says it and compares it."""
        cuda = torch.cuda.is_available()
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    @property
    def left(self) -> float:
        """Seconds until its time is over."""
        return self.deadline - time.monotonic()

    def note(
        self,
        what: str,
        value: Any,
        unit: str = "",
        *,
        predicted: str = "",
        holds: bool | None = None,
        **more: Any,
    ) -> None:
        """Write down a measurement at once: a later one may end the process.

        Args:
            what: was measured.
            value: a number or a text.
            unit: of it.
            predicted: what was expected.
            holds: whether it is as it must be; None where nothing is asked.
            more: belongs to it, and is not in the table.
        """
        entry = {"stage": self.stage, "what": what, "value": value, "unit": unit}
        entry |= {"predicted": predicted, "holds": holds, **more}
        append(self.lines, entry)

    def start_comfyui(self) -> None:
        """Make ComfyUI's modules importable, on the device; does nothing the second time."""
        if "comfy.cli_args" in sys.modules:
            return
        models = self.scratch / "models"
        for name in ("diffusion_models", "loras", "checkpoints"):
            (models / name).mkdir(parents=True, exist_ok=True)
        inside.start(*(self.arguments if self.device.type == "cuda" else ON_CPU), models=models)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """How long the device takes for a call."""
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begun

    def median(self, call: Callable[[], object], *, runs: int, warm: int = 2) -> float:
        """The median seconds of a call, the first ones left out."""
        times = [self.seconds(call) for _ in range(warm + runs)]
        return statistics.median(times[warm:])

    def median_of_short(self, call: Callable[[], object], *, runs: int) -> float:
        """The median seconds of a call that may be over before the next one is launched."""
        self.seconds(call)
        count = min(100, max(1, math.ceil(LONG_ENOUGH / self.seconds(call))))
        return self.median(lambda: [call() for _ in range(count)], runs=runs, warm=1) / count

    def peak(self) -> float | None:
        """GB of the card's memory that tensors took at most since `forget_peak`; None on a CPU."""
        cuda = self.device.type == "cuda"
        return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2) if cuda else None

    def forget_peak(self) -> None:
        """Count the peak from now on."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def attempt(self, what: str, call: Callable[[], object]) -> bool:
        """Call, and note why if it fails; whether it worked.

        What a card or a version lacks is a result as well.
        """
        try:
            call()
            self.wait()
        except (RuntimeError, ImportError, AttributeError, ValueError, TypeError) as error:
            self.note(what, f"does not run: {type(error).__name__}: {error!s:.200}")
            return False
        return True


def append(lines: Path, entry: dict[str, Any]) -> None:
    """Add one line to the file of measurements, on the disk when this returns."""
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def distance(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the relative error of a tensor, computed in float64."""
    made, wanted = made.double(), wanted.double()
    return float((made - wanted).norm() / wanted.norm())
