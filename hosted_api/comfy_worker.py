"""A worker that is one ComfyUI, which runs already or is started here.

`/history` is the truth about a prompt: it is asked every `LOOK` seconds. The websocket only brings
progress, and may die and come back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import aiohttp

from ..errors import DrawError, WorkerLostError
from ..prediction.fill import API_FOLDER, Prompt, save_as
from .changes import heard
from .comfy_client import ComfyClient, failure, is_sick
from .comfy_process import ComfyProcess
from .job import Job, Kind, prompt_id
from .logs import step_line
from .worker import Drawn, Progress, Told

LOOK: Final = 1.0
"""Seconds between two looks at the history."""

QUIET: Final = 5.0
"""Seconds without a word of a prompt after which the queue is asked for it."""

SAMPLER: Final = "SamplerCustomAdvanced"
"""The class of the node whose progress is that of the picture."""

log = logging.getLogger(__name__)

_Message = dict[str, Any]


class ComfyWorker:
    """One ComfyUI.

    Args:
        client: speaks to it.
        session: opens the websocket.
        stall: seconds without a sign of life after which it is given up.
        process: starts it; None where somebody else does.
    """

    def __init__(
        self, client: ComfyClient, session: aiohttp.ClientSession, stall: float,
        process: ComfyProcess | None = None,
    ) -> None:  # fmt: skip
        self.name = client.url
        self.state = "starting"
        self.loaded: Kind | None = None
        self.facts: dict[str, float] = {}
        self._client = client
        self._session = session
        self._stall = stall
        self._process = process
        self._follows: dict[str, _Follower] = {}  # by the id of the prompt

    @property
    def up(self) -> bool:
        """Whether it can draw now."""
        return self.state == "ready"

    # --- being there ---

    async def run(self, told: Callable[[], None]) -> None:
        """Keep it up until cancelled: start it, watch it, start it again.

        Args:
            told: called when it can draw.
        """
        pause = 1.0
        try:
            while True:
                self.state = "starting"
                begun = time.monotonic()
                try:
                    await self.watch(told)
                except WorkerLostError as error:
                    log.warning("%s: %s", self.name, error)
                    self.state = f"down: {error}"
                pause = 1.0 if time.monotonic() - begun > 60.0 else min(pause * 2, 30.0)
                await asyncio.sleep(pause)
        finally:
            if self._process is not None:
                await self._process.stop()

    async def watch(self, told: Callable[[], None]) -> None:
        """Start it, or see that it answers; then look at it until it is gone.

        Args:
            told: called when it can draw.

        Raises:
            WorkerLostError: it is.
        """
        self.loaded = None
        if self._process is not None:
            await self._process.start(self._client.stats)
        await self._client.stats()
        if not await self._client.has_pack():
            raise WorkerLostError("flux-hotswap is not installed in this ComfyUI.")
        await self._client.clear()
        self.state = "ready"
        log.info("%s: ready", self.name)
        told()
        misses = 0
        while True:
            if self._process is not None:
                await self._process.check()
            if not self.up:
                raise WorkerLostError("it is given up")
            try:
                self.facts = _facts(await self._client.stats())
                misses = 0
            except WorkerLostError:
                misses += 1
                if misses >= 3:
                    raise
            await asyncio.sleep(LOOK)

    # --- drawing ---

    async def draw(self, job: Job, prompt: Prompt) -> AsyncIterator[Told]:
        """Draw a job, see `Worker`."""
        self.loaded = job.kind
        prefix = self._client.prefix(job)
        saved = save_as(prompt, f"{API_FOLDER}/{prefix}")
        wanted = prompt_id(job.id, job.attempt)
        follower = _Follower(self._client.url, self._session, prompt, wanted)
        self._follows[wanted] = follower
        socket = asyncio.ensure_future(follower.run())
        try:
            await follower.wait_open()
            if follower.canceled:
                return
            await self._client.submit(prompt, wanted, follower.client_id)
            entry = None
            while entry is None:
                if await follower.wait_news(LOOK):
                    entry = await self._look(follower, wanted)
                for text in follower.texts():
                    yield Progress(text)
            yield await self._result(entry, saved)
        except _InterruptedError:
            return
        except WorkerLostError:
            self.state = "lost"  # nothing more is given to it before `watch` has looked again
            raise
        finally:
            socket.cancel()
            del self._follows[wanted]
            await _to_its_end(self._client.forget(wanted, prefix))

    async def cancel(self, job: Job) -> None:
        """Stop drawing a job, see `Worker`."""
        wanted = prompt_id(job.id, job.attempt)
        follower = self._follows.get(wanted)
        if follower is not None:
            follower.canceled = True
        await self._client.stop(wanted)
        if follower is not None:
            follower.hurry()

    async def _look(self, follower: _Follower, wanted: str) -> _Message | None:
        """Return what the history says of a prompt; None before its end.

        Raises:
            _InterruptedError: it was taken out of the queue before it began.
            WorkerLostError: it is neither there nor in the queue, or nothing has come for long.
        """
        waiting = True
        if follower.canceled or follower.quiet > min(QUIET, self._stall / 2):
            # The queue first: a prompt goes from there to the history in one step.
            queue = await self._client.queue()
            waiting = wanted in queue.running or wanted in queue.pending
            ours = any(self._client.is_ours(prompt) for prompt in queue.running.values())
            if wanted in queue.pending and not ours:  # others' are before it, and say nothing to us
                follower.heard()
        entry = await self._client.history(wanted)
        if entry is not None:
            return entry
        if not waiting:
            if follower.canceled:
                raise _InterruptedError
            raise WorkerLostError("ComfyUI has lost the prompt; it was started anew.")
        if follower.canceled:
            # It was not there yet, or ComfyUI forgot the interrupt as it began.
            await self._client.stop(wanted)
        if follower.quiet > self._stall:
            raise WorkerLostError(f"ComfyUI gave no sign of life for {self._stall:.0f} s.")
        return None

    async def _result(self, entry: _Message, saved: list[str]) -> Drawn:
        why = failure(entry)
        if why == "":
            raise _InterruptedError
        if why is not None and is_sick(why):
            raise WorkerLostError(f"ComfyUI's GPU has failed: {why.splitlines()[0]}")
        if why is not None:
            raise DrawError(why)
        outputs: dict[str, dict[str, list[Any]]] = entry.get("outputs") or {}
        shown = [outputs[key] for key in saved if key in outputs]
        images = [image for each in shown for image in each.get("images", [])]
        records = [json.loads(text) for each in shown for text in each.get("flux_hotswap", [])]
        pictures = [(str(image["filename"]), await self._client.view(image)) for image in images]
        return Drawn(tuple(pictures), "".join(_summary(record) for record in records))


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do what has to be done, also where whoever waits for it is cancelled."""
    doing = asyncio.ensure_future(work)
    try:
        with suppress(WorkerLostError):
            await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


class _InterruptedError(Exception):
    """The prompt was stopped."""


class _Follower:
    """Follows a prompt on the websocket, and remembers when something last happened.

    Attributes:
        canceled: nobody wants the prompt any more.
    """

    def __init__(
        self, url: str, session: aiohttp.ClientSession, prompt: Prompt, wanted: str
    ) -> None:
        self.client_id = uuid.uuid4().hex
        self._url = f"{url}/ws?clientId={self.client_id}"
        self._session = session
        self._samplers = {key for key, node in prompt.items() if node["class_type"] == SAMPLER}
        self._wanted = wanted
        self._texts: list[str] = []
        self._news = asyncio.Event()
        self._open = asyncio.Event()
        self._heard = self._looked = time.monotonic()
        self._began = 0.0
        self._over = False
        self.canceled = False

    @property
    def quiet(self) -> float:
        """Seconds since something was heard of the prompt."""
        return time.monotonic() - self._heard

    def heard(self) -> None:
        """Count a sign of life."""
        self._heard = time.monotonic()

    def texts(self) -> list[str]:
        """Return the log lines since the last call."""
        found, self._texts = self._texts, []
        return found

    def hurry(self) -> None:
        """Let the history be looked at now."""
        self._over = True
        self._news.set()

    async def wait_open(self) -> None:
        """Wait for the websocket, but not for long: what it tells can be done without."""
        await heard(self._open, 5.0)

    async def wait_news(self, seconds: float) -> bool:
        """Wait until there is a line or an end, at most so long.

        Returns:
            Whether it is time to look at the history: it ends, or was not looked at for so long.
        """
        left = self._looked + seconds - time.monotonic()
        if not self._over and left > 0:
            await heard(self._news, left)
        self._news.clear()
        due = self._over or time.monotonic() >= self._looked + seconds
        if due:
            self._looked, self._over = time.monotonic(), False
        return due

    async def run(self) -> None:
        """Listen until cancelled, and connect again when the connection dies."""
        while True:
            with suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                async with self._session.ws_connect(
                    self._url, max_msg_size=0, heartbeat=20.0
                ) as socket:
                    self._open.set()
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            self._take(json.loads(message.data))
            await asyncio.sleep(LOOK)

    def _take(self, told: _Message) -> None:
        data: _Message = told.get("data") or {}
        if data.get("prompt_id") != self._wanted:
            return
        self.heard()
        kind, node = told.get("type"), str(data.get("node"))
        if kind == "executing" and node in self._samplers:
            self._began = time.monotonic()
        elif kind == "progress" and node in self._samplers:
            seconds = time.monotonic() - self._began
            self._texts.append(step_line(int(data["value"]), int(data["max"]), seconds))
        elif kind == "executing" and data.get("node") is None:  # it is in the history now
            self._over = True
        if self._over or self._texts:
            self._news.set()


def _facts(stats: _Message) -> dict[str, float]:
    """Return what ComfyUI tells of its device, see `Worker.facts`."""
    devices: list[_Message] = stats.get("devices") or [{}]
    return {
        name: float(value)
        for name in ("vram_total", "vram_free")
        if isinstance(value := devices[0].get(name), (int, float))
    }


def _summary(record: _Message) -> str:
    """Return what a picture's record tells, in lines of a log."""
    lines = [
        f"{record.get('width')}x{record.get('height')}, engine {record.get('engine')}: "
        f"{record.get('engine_reason')}"
    ]
    lines += [
        f"LoRA {lora.get('file')}: {lora.get('matched')} of {lora.get('keys')} keys, "
        f"strength {lora.get('strength')}"
        for lora in record.get("loras", [])
    ]
    lines += [f"Note: {warning}" for warning in record.get("warnings", [])]
    return "".join(f"{line}\n" for line in lines)
