"""The ComfyUIs of this machine: those that run already, and those that are started here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from ..errors import SettingsError
from .comfy_client import ComfyClient
from .comfy_process import ComfyProcess
from .comfy_worker import ComfyWorker
from .options import Options
from .ports import free_port

CARDS: Final = "CUDA_VISIBLE_DEVICES"


class LocalPool:
    """A fixed number of ComfyUIs.

    Args:
        options: which.
        session: speaks to them.
        mark: how names of this API's files begin.
    """

    def __init__(self, options: Options, session: aiohttp.ClientSession, mark: str) -> None:
        def worker(url: str, process: ComfyProcess | None = None) -> ComfyWorker:
            return ComfyWorker(ComfyClient(url, session, mark), session, options.stall, process)

        self.workers: Sequence[ComfyWorker] = [
            *(worker(url) for url in options.comfyui),
            *(worker(*_process(options, number)) for number in range(len(options.start))),
        ]

    @property
    def ready(self) -> bool:
        """Whether one can draw."""
        return any(worker.up for worker in self.workers)

    async def run(self, told: Callable[[], None]) -> None:
        """Keep them up, see `Pool`."""
        await asyncio.gather(*(worker.run(told) for worker in self.workers))

    def waiting(self, jobs: int) -> None:
        """Hear how many jobs wait: there will not be more ComfyUIs."""


def _process(options: Options, number: int) -> tuple[str, ComfyProcess]:
    port = free_port()
    folder = options.state.resolve() / f"comfyui-{number}"
    own = {CARDS: card(number)} if len(options.start) > 1 else None
    place = options.start[number].resolve()
    process = ComfyProcess(place, options.python, port, folder, options.arguments, own)
    return f"http://127.0.0.1:{port}", process


def card(number: int) -> str:
    """Return which GPU a ComfyUI gets: one each, in the order of those that we may use.

    Raises:
        SettingsError: there are fewer.
    """
    allowed = os.environ.get(CARDS)
    if allowed is None:
        return str(number)
    cards = [card.strip() for card in allowed.split(",")]
    if number >= len(cards):
        raise SettingsError(
            f"{CARDS} names {len(cards)} GPUs, and each --start wants one. Name more, or start "
            "fewer."
        )
    return cards[number]
