"""Counts for Prometheus, in its text form. Labels are bounded: no caller can make the text grow."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"
"""What each label says where a metric has as many combinations as it may have."""

_MOST: Final = 200
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_BOUNDS: Final = (*(f"{each:g}" for each in _SECONDS), "+Inf")

_Key: TypeAlias = "tuple[str, ...]"
_Value = TypeVar("_Value")


class _Metric(Generic[_Value]):
    """A name, its labels, and a value for each combination of what they say."""

    kind = ""

    def __init__(self, name: str, told: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._told = told
        self._labels = tuple(labels)
        self._values: dict[_Key, _Value] = {}
        self._lock = threading.Lock()

    def lines(self) -> Iterator[str]:
        """Yield the lines that say what it is, and its values."""
        yield f"# HELP {self.name} {self._told}"
        yield f"# TYPE {self.name} {self.kind}"
        with self._lock:
            samples = list(self._samples())
        yield from samples

    def _samples(self) -> Iterator[str]:
        raise NotImplementedError

    def _key(self, said: dict[str, str]) -> _Key:
        """Return what the labels say, in their order; for one combination too many `OTHER`."""
        key = tuple(said[label] for label in self._labels)
        full = key not in self._values and len(self._values) >= _MOST
        return (OTHER,) * len(key) if full else key

    def _line(self, key: _Key, value: float, ending: str = "", *more: str) -> str:
        pairs = [
            f'{label}="{_escaped(text)}"' for label, text in zip(self._labels, key, strict=True)
        ]
        labels = ",".join([*pairs, *more])
        shown = f"{{{labels}}}" if labels else ""
        return f"{self.name}{ending}{shown} {value:.15g}"


class Counter(_Metric[float]):
    """What only grows."""

    kind = "counter"

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Count.

        Args:
            amount: so many more.
            labels: what each label of the metric says.
        """
        with self._lock:
            key = self._key(labels)
            self._values[key] = self._values.get(key, 0.0) + amount

    def _samples(self) -> Iterator[str]:
        for key, value in self._values.items():
            yield self._line(key, value)


class Gauge(_Metric[float]):
    """What goes up and down."""

    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Say how much there is now."""
        with self._lock:
            self._values[self._key(labels)] = value

    def clear(self) -> None:
        """Forget everything that was said, of what may be gone."""
        with self._lock:
            self._values.clear()

    def _samples(self) -> Iterator[str]:
        for key, value in self._values.items():
            yield self._line(key, value)


class Histogram(_Metric["list[float]"]):
    """How often something took how long: in each bucket, then in all, and the sum."""

    kind = "histogram"

    def observe(self, seconds: float, **labels: str) -> None:
        """Count one of so many seconds."""
        with self._lock:
            counts = self._values.setdefault(self._key(labels), [0.0] * (len(_SECONDS) + 2))
            counts[bisect_left(_SECONDS, seconds)] += 1
            counts[-1] += seconds

    def _samples(self) -> Iterator[str]:
        for key, (*counts, total) in self._values.items():
            below = 0.0
            for bound, count in zip(_BOUNDS, counts, strict=True):
                below += count
                yield self._line(key, below, "_bucket", f'le="{bound}"')
            yield self._line(key, total, "_sum")
            yield self._line(key, below, "_count")


class Metrics:
    """All that one API process counts.

    Attributes:
        queued: jobs that wait.
        oldest: seconds that the first of them has waited; 0 where none waits.
        running: jobs that run.
        workers: by `state`: up, busy.
        drawing: 1 or 0 for each `worker`.
        memory: bytes of each `worker`'s GPU by `what`: vram_total, vram_free.
        ended: jobs by `status`.
        lost: attempts whose worker was lost.
        seconds: by `phase`: queue, run.
        switches: by `what` a worker had to load: model, lora.
        requests: HTTP requests by `method`, `route` (as it is declared, not as it was asked) and
            `status`.
        webhooks: messages by `event` and `outcome`.
        stored: bytes by `what`: uploads, outputs.
    """

    def __init__(self) -> None:
        self.queued = Gauge("hotswap_queue_length", "Predictions that wait.")
        self.oldest = Gauge("hotswap_queue_oldest_seconds", "So long the first of them has waited.")
        self.running = Gauge("hotswap_running", "Predictions that run.")
        self.workers = Gauge("hotswap_workers", "ComfyUIs that are up, or busy.", ["state"])
        self.drawing = Gauge(
            "hotswap_worker_drawing", "Whether a ComfyUI draws, by its name.", ["worker"]
        )
        self.memory = Gauge(
            "hotswap_worker_bytes", "Memory of a ComfyUI's GPU.", ["worker", "what"]
        )
        self.ended = Counter("hotswap_predictions_total", "Predictions that ended.", ["status"])
        self.lost = Counter("hotswap_attempts_lost_total", "Attempts whose ComfyUI was lost.")
        self.seconds = Histogram("hotswap_phase_seconds", "Seconds of a phase.", ["phase"])
        self.switches = Counter("hotswap_switches_total", "What ComfyUIs had to load.", ["what"])
        self.requests = Counter(
            "hotswap_http_requests_total", "HTTP requests.", ["method", "route", "status"]
        )
        self.webhooks = Counter(
            "hotswap_webhooks_total", "Messages to webhooks.", ["event", "outcome"]
        )
        self.stored = Counter("hotswap_stored_bytes_total", "Bytes that were stored.", ["what"])
        self.lost.add(0.0)
        for gauge in (self.queued, self.oldest, self.running):
            gauge.set(0.0)

    def text(self) -> str:
        """Return everything as Prometheus reads it."""
        each = (metric.lines() for metric in vars(self).values() if isinstance(metric, _Metric))
        return "".join(f"{line}\n" for lines in each for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
