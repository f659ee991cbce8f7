"""Made-up traffic for the simulation of dispatch: who asks for what, and when. Standard library."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).resolve().parents[1]))

from flux_hotswap.hosted_api.job import Kind, Waiting

DAY = 86400.0
LORAS = 200
GREEDY = "greedy"
"""The owner who asks for many at once; the others ask for one at a time."""

_LORA_WEIGHTS = list(accumulate(1 / rank for rank in range(1, LORAS + 1)))  # Zipf


@dataclass(frozen=True)
class Load:
    """What comes in a day.

    Attributes:
        workers: for so many.
        mean: part of all workers' time that drawing takes, on average over a day.
        wave: how much of that it is more at its height, and less at night.
        schnell: part of the calls that want the other model.
        precise: part of the calls that want the other engine.
        plain: part of the calls without a LoRA.
        greedy: part of the calls that one owner makes, `batch` at once on average.
        modest: so many other owners.
        seconds_step: of a step of a picture of a megapixel; `precise_step` on the other engine.
        seconds_more: of a prediction, beside its steps.
    """

    workers: int = 64
    mean: float = 0.8
    wave: float = 0.3
    schnell: float = 0.2
    precise: float = 0.2
    plain: float = 0.1
    greedy: float = 0.3
    batch: int = 100
    modest: int = 9
    seconds_step: float = 0.5
    precise_step: float = 0.8
    seconds_more: float = 1.5


@dataclass(frozen=True)
class Call:
    """A call: what waits, and how long it takes to draw once all is loaded."""

    waiting: Waiting
    seconds: float


def calls(load: Load, hours: float, seed: int, start: float = 0.0) -> Iterator[Call]:
    """Yield the calls of a time, in their order.

    Args:
        load: how much comes.
        hours: how long.
        seed: the same gives the same.
        start: hours after midnight, when the least comes; the most comes at noon.
    """
    rng = Random(seed)
    numbers = count()
    rate = load.mean * load.workers / _mean_seconds(load)
    # The greedy owner comes with all its calls at once, so it comes less often.
    coming = rate * (1 - load.greedy + load.greedy / load.batch)
    batches = load.greedy / load.batch / (1 - load.greedy + load.greedy / load.batch)
    highest = coming * (1 + load.wave)
    now = 0.0
    while (now := now + rng.expovariate(highest)) < hours * 3600:
        turn = 2 * math.pi * ((start * 3600 + now) / DAY)
        if rng.random() * highest > coming * (1 - load.wave * math.cos(turn)):
            continue
        many = 1
        owner = f"modest{rng.randrange(load.modest)}"
        if rng.random() < batches:
            owner, many = GREEDY, rng.randint(1, 2 * load.batch - 1)
        lora = _lora(rng, load)  # a batch is of one kind
        for _ in range(many):
            yield _call(rng, load, str(next(numbers)), owner, now, lora)


def _lora(rng: Random, load: Load) -> str:
    if rng.random() < load.plain:
        return ""
    (found,) = rng.choices(range(LORAS), cum_weights=_LORA_WEIGHTS)
    return f"lora{found}"


def _call(rng: Random, load: Load, name: str, owner: str, now: float, lora: str) -> Call:
    schnell, fast = rng.random() < load.schnell, rng.random() >= load.precise
    pictures = rng.choice(PICTURES)
    work = (4.0 if schnell else 28.0) * pictures
    kind: Kind = ("schnell" if schnell else "dev", fast, lora)
    waiting = Waiting(name, kind, now, owner, work=work)
    return Call(waiting, _seconds(load, work, fast=fast))


PICTURES: Sequence[int] = (1, 1, 1, 1, 1, 1, 1, 1, 2, 4)
"""Of a call, each as often as it stands here."""


def _seconds(load: Load, work: float, *, fast: bool) -> float:
    return work * (load.seconds_step if fast else load.precise_step) + load.seconds_more


def _mean_seconds(load: Load) -> float:
    steps = (load.schnell * 4 + (1 - load.schnell) * 28) * sum(PICTURES) / len(PICTURES)
    fast = _seconds(load, steps, fast=True)
    return (1 - load.precise) * fast + load.precise * _seconds(load, steps, fast=False)
