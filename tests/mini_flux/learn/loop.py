"""A training loop that can be stopped at any time: it goes on from its last state.

Whatever is random in a step comes from `dice(seed, step)`, so a run that was stopped gives the same
weights as one that was not.
"""

from __future__ import annotations

import json
import logging
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

log = logging.getLogger(__name__)

SAVE_SECONDS = 120


class Stateful(Protocol):
    """What keeps a state: a module, an optimizer."""

    def state_dict(self) -> Any:
        """The state."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take it back."""


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its files.
        steps: how many.
        parts: whatever changes, by name.
        step: does one and returns its losses by name.
        sketch: called every `sketch_every` steps, to look at how it goes.
    """

    name: str
    steps: int
    parts: Mapping[str, Stateful]
    step: Callable[[int], Mapping[str, float]]
    sketch: Callable[[int], None] | None = None
    sketch_every: int = 1000


def dice(seed: int, step: int) -> random.Random:
    """The randomness of a step."""
    return random.Random(f"{seed} {step}")


def seed(first: int, known: Mapping[str, Tensor] | None) -> int:
    """The seed of the images: `first`, but others each time that `known` weights go on."""
    if not known:
        return first
    return zlib.crc32(b"".join(known[name].numpy().tobytes() for name in sorted(known)))


def run(stage: Stage, folder: Path) -> None:
    """Train to the end, from the state in `folder` if there is one; leaves the loss curve there."""
    path = folder / f"{stage.name}.state.pt"
    done, seconds = _load(stage, path)
    saved = time.monotonic()
    with (
        (folder / f"{stage.name}.loss.jsonl").open("a", encoding="utf-8") as curve,
        tqdm(total=stage.steps, initial=done, desc=stage.name, mininterval=5) as bar,
    ):
        means: dict[str, float] = {}
        for index in range(done, stage.steps):
            begun = time.monotonic()
            losses = stage.step(index)
            seconds += time.monotonic() - begun
            for name, loss in losses.items():
                means[name] = 0.98 * means.get(name, loss) + 0.02 * loss
            bar.update()
            last = index + 1 == stage.steps
            if index % 50 == 49 or last:
                shown = {name: round(mean, 5) for name, mean in means.items()}
                bar.set_postfix(shown)
                curve.write(
                    json.dumps({"step": index + 1, **shown, "seconds": round(seconds)}) + "\n"
                )
                curve.flush()
            if last or time.monotonic() - saved > SAVE_SECONDS:
                _save(stage, path, index + 1, seconds)
                saved = time.monotonic()
            if stage.sketch and (last or (index + 1) % stage.sketch_every == 0):
                stage.sketch(index + 1)
    log.info("%s: %d steps, %.0f s", stage.name, stage.steps, seconds)


def _load(stage: Stage, path: Path) -> tuple[int, float]:
    """How many steps are done, and the seconds that they took."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    for name, part in stage.parts.items():
        part.load_state_dict(state["parts"][name])
    log.info("%s goes on after step %d of %d", stage.name, state["done"], stage.steps)
    return state["done"], state["seconds"]


def _save(stage: Stage, path: Path, done: int, seconds: float) -> None:
    parts = {name: part.state_dict() for name, part in stage.parts.items()}
    fresh = path.with_suffix(".new")
    torch.save({"done": done, "seconds": seconds, "parts": parts}, fresh)
    fresh.replace(path)


def pace(index: int, steps: int, *, warm: int = 100, fall: float = 0.4) -> float:
    """Share of the learning rate: up in `warm` steps, down in the last `fall` of the steps."""
    return min((index + 1) / warm, 1.0, (steps - index) / (fall * steps))
