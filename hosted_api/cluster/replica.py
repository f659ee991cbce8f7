"""What Ray Serve keeps up: one ComfyUI, one job at a time. It ends with its ComfyUI."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from ...errors import WorkerLostError
from ...files.lock import locked, try_lock
from ...prediction.fill import Prompt
from ..comfy_client import ComfyClient
from ..comfy_process import LOG, ComfyProcess
from ..comfy_worker import ComfyWorker
from ..job import Job
from ..ports import free_port
from ..worker import Progress, Told
from .settings import ReplicaSettings, read_settings

MARK: Final = "0" * 12 + "-"
"""Of names of files in the ComfyUI that is the replica's alone."""

FOLDERS: Final = "flux-hotswap-replicas"
"""Below the folder that the settings name, or the system's temporary one."""

PREFIX: Final = "replica-"
"""Of the folder of one replica, so that nothing else is taken for one."""

LOGS: Final = 5
"""Of so many replicas that are gone the logs are kept."""

log = logging.getLogger("ray.serve")


class ComfyReplica:
    """One replica.

    Args:
        given: see `read_settings`.
    """

    async def __init__(self, given: Mapping[str, Any]) -> None:
        settings = read_settings(given)
        self._kept = contextlib.ExitStack()
        folder = self._kept.enter_context(own_folder(root_of(settings)))
        port = free_port()
        self._process = process = ComfyProcess(
            Path(settings.comfyui),
            Path(settings.python) if settings.python else None,
            port,
            folder,
            settings.arguments,
            {"PYTHONPATH": ""},  # ours, which names the pack; ComfyUI has modules of such names
        )
        session = aiohttp.ClientSession()
        client = ComfyClient(f"http://127.0.0.1:{port}", session, MARK)
        self._worker = ComfyWorker(client, session, settings.stall, process)
        self._up = asyncio.Event()
        self._living = asyncio.ensure_future(self._live())
        first = asyncio.ensure_future(self._up.wait())
        await asyncio.wait([first, self._living], return_when=asyncio.FIRST_COMPLETED)
        if not self._up.is_set():
            first.cancel()
            await session.close()
            self._living.result()

    async def _live(self) -> None:
        """Watch ComfyUI, and end with it.

        Raises:
            WorkerLostError: it did not even start.
        """
        try:
            await self._worker.watch(self._up.set)
        except WorkerLostError as error:
            if not self._up.is_set():
                raise
            # Ray would ask three times for health before it believed that; whoever waits for a
            # picture hears of the end of a process at once, and Ray starts a new replica.
            log.error("the replica ends: %s (%s)", error, self._process.log_path)
            logging.shutdown()
            os._exit(1)

    async def draw(self, job: Job, prompt: Prompt, replica: str) -> AsyncIterator[Told]:
        """Draw a job, see `Worker.draw`. A call that is cancelled ends when ComfyUI is free again.

        Args:
            job: without its pictures.
            prompt: ComfyUI's.
            replica: this one; the router reads it.
        """
        yield Progress("")  # whoever called knows by it that the call has arrived
        told: asyncio.Queue[Told | None] = asyncio.Queue()
        drawing = asyncio.ensure_future(self._draw(job, prompt, told))
        try:
            while (each := await told.get()) is not None:
                yield each
            await drawing
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(job, drawing))
            raise

    async def _draw(self, job: Job, prompt: Prompt, told: asyncio.Queue[Told | None]) -> None:
        try:
            async for each in self._worker.draw(job, prompt):
                told.put_nowait(each)
        finally:
            told.put_nowait(None)

    async def _stop(self, job: Job, drawing: asyncio.Future[None]) -> None:
        await self._worker.cancel(job)
        await asyncio.wait([drawing])

    async def wake(self) -> None:
        """Do nothing: a call that waits for a replica makes Ray start one."""

    async def record_routing_stats(self) -> dict[str, Any]:
        """Return what the API is to know of this replica; Ray asks for it and passes it on."""
        return {
            "loaded": self._worker.loaded,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "facts": dict(self._worker.facts),
        }


def root_of(settings: ReplicaSettings) -> Path:
    """Return where the folders of replicas are, and nothing else."""
    return Path(settings.folder or tempfile.gettempdir(), FOLDERS)


@contextlib.contextmanager
def own_folder(root: Path) -> Generator[Path, None, None]:
    """Make a folder for this process, and clear those of processes that are gone.

    Args:
        root: of these folders alone.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.ExitStack() as kept:
        with locked(root / "lock", sleep=time.sleep, cancelled=lambda: False):
            _clear(root)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
            kept.enter_context(try_lock(folder / "lock"))
        yield folder


def _clear(root: Path) -> None:
    """Remove what processes that are gone have left, all but the last logs: those say why."""
    gone: list[Path] = []
    for path in root.glob(f"{PREFIX}*/lock"):
        with try_lock(path) as free:
            if free:
                gone.append(path.parent)
    gone.sort(key=_ended, reverse=True)
    for path in gone[:LOGS]:
        for name in ("output", "temp"):
            shutil.rmtree(path / name, ignore_errors=True)
    for path in gone[LOGS:]:
        shutil.rmtree(path, ignore_errors=True)


def _ended(folder: Path) -> float:
    log = folder / LOG
    return log.stat().st_mtime if log.is_file() else 0.0
