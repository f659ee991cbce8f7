"""A prediction as the API keeps it: frozen, with the states that it goes through.

queued -> running -> succeeded, failed or canceled; running -> queued when its worker was lost.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from ..prediction.spec import CUSTOM, FIELD

_ATTEMPTS: Final = uuid.UUID("0b6a1c58-6c5e-4f0e-9a53-5f2a5c1f7d10")
"""Names ComfyUI's prompts; any constant does."""

Kind: TypeAlias = "tuple[str, bool, str]"
"""Model, go_fast and LoRA: what a worker has loaded after a job. Switching costs seconds."""

URGENCY: Final = 3
"""How urgent a job is that says nothing: of 0 to 7, the lower the more, as in RFC 9218."""

COG: Final = "cog"
API: Final = "api"


class Status(str, Enum):
    """Where a job is; only the last three are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


class Event(str, Enum):
    """What a webhook can be told."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prediction. Times are seconds since 1970, None before they have come.

    Attributes:
        id: 26 letters and digits that cannot be guessed.
        owner: whose token asked; empty where no tokens are asked for.
        source: which API asked, `API` or `COG`.
        model: owner/name, as the client called it.
        version: as the client called it, `hidden` where it named none.
        input: the fields as they were given.
        request: the fields as they are drawn: with the LoRA that the name means, and a seed.
        attempt: how often it was begun; 0 before.
        worker: who runs it.
        deadline: when it is canceled if it has not ended.
        files: names of the pictures in its folder, in order.
        error: why it failed.
        webhook: where its events go; empty for nowhere.
        events: which of them.
        removed: whether its data is gone.
        urgency: 0 to 7, the lower goes first.
    """

    id: str
    owner: str = ""
    source: str = API
    model: str
    version: str
    input: dict[str, Any] = field(repr=False)
    request: dict[str, Any] = field(repr=False)
    status: Status = Status.QUEUED
    attempt: int = 0
    worker: str = ""
    created: float
    started: float | None = None
    completed: float | None = None
    deadline: float
    files: tuple[str, ...] = ()
    error: str = ""
    logs: str = field(default="", repr=False)
    webhook: str = field(default="", repr=False)
    events: tuple[str, ...] = ()
    removed: bool = False
    urgency: int = URGENCY

    @property
    def work(self) -> float:
        """How much there is to draw: megapixels x steps, of all its pictures.

        A picture to start from has any size; it counts as one megapixel.
        """
        steps = float(self._field("num_inference_steps"))
        if self._field("image"):
            area = 1.0
            steps *= float(self._field("prompt_strength"))
        elif self._field("aspect_ratio") == CUSTOM:
            area = float(self._field("width")) * float(self._field("height")) / 1e6
        else:
            area = float(self._field("megapixels"))
        return max(area * steps, 1.0) * int(self._field("num_outputs"))

    @property
    def kind(self) -> Kind:
        """What a worker has loaded after it."""
        return (
            str(self._field("model")),
            bool(self._field("go_fast")),
            str(self._field("lora") or ""),
        )

    def _field(self, name: str) -> Any:
        return self.request.get(name, FIELD[name].default)


class Waiting(NamedTuple):
    """What the choice of the next job has to know of one.

    Attributes:
        kind: see `Job.kind`.
        work: see `Job.work`.
    """

    id: str
    kind: Kind
    created: float
    owner: str = ""
    urgency: int = URGENCY
    work: float = 1.0


def new_id() -> str:
    """Return an id such as the hosted model gives: 128 random bits in base32."""
    return base64.b32encode(secrets.token_bytes(16)).decode().lower().rstrip("=")


def prompt_id(job_id: str, attempt: int) -> str:
    """Return the id of ComfyUI's prompt for an attempt; the same one after a restart."""
    return str(uuid.uuid5(_ATTEMPTS, f"{job_id}/{attempt}"))
