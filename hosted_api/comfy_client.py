"""What the API says to a ComfyUI over HTTP. Every call has an end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import aiohttp

from ..errors import DrawError, WorkerLostError
from ..prediction.fill import API_FOLDER, SAVE_CLASS, Prompt
from .job import Job

DROP_ROUTE: Final = "/flux_hotswap/drop"
"""Of the pack, see `gate`."""

_CALL: Final = aiohttp.ClientTimeout(total=60.0, connect=10.0)
_FAILURES: Final = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
_AWAY: Final = (502, 503, 504)
"""What a proxy answers while ComfyUI is started anew."""

_SICK: Final = re.compile(r"(?:CUDA|HIP) error:|device-side assert")
Json = dict[str, Any]


class Queue(NamedTuple):
    """What a ComfyUI has to do: prompts by their id.

    Attributes:
        running: it draws them.
        pending: they wait for that.
    """

    running: dict[str, Prompt]
    pending: dict[str, Prompt]


class ComfyClient:
    """One ComfyUI.

    Args:
        url: where it is, without a slash at the end.
        session: sends the calls.
        mark: how names of this API's files begin, so that another one's are left alone.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, mark: str) -> None:
        self.url = url
        self._session = session
        self._mark = mark

    def prefix(self, job: Job) -> str:
        """Return how the names of an attempt's files begin, below the folder of the output."""
        return f"{self._mark}{job.id}-{job.attempt}"

    async def stats(self) -> Json:
        """Return what it tells of itself.

        Raises:
            WorkerLostError: it does not answer.
        """
        return await self._get("/system_stats")

    async def has_pack(self) -> bool:
        """Whether our nodes are there."""
        return SAVE_CLASS in await self._get(f"/object_info/{SAVE_CLASS}")

    async def submit(self, prompt: Prompt, prompt_id: str, client_id: str) -> None:
        """Queue a prompt under an id of ours.

        Raises:
            DrawError: it is refused; the message says why.
            WorkerLostError: it does not answer.
        """
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": client_id}
        try:
            async with self._session.post(f"{self.url}/prompt", json=body, timeout=_CALL) as answer:
                text = await answer.text()
        except _FAILURES as error:
            raise self._gone(error) from None
        if answer.status in _AWAY:
            raise self._gone(f"HTTP {answer.status}")
        if answer.status != 200:
            reason = _why(text)
            raise DrawError(reason)

    async def history(self, prompt_id: str) -> Json | None:
        """Return what became of a prompt; None before its end."""
        told = await self._get(f"/history/{prompt_id}")
        return told.get(prompt_id)

    async def queue(self) -> Queue:
        """Return the prompts that run, and those that wait, by their id."""
        told = await self._get("/queue")
        parts = (told.get(f"queue_{name}", []) for name in ("running", "pending"))
        return Queue(*({str(entry[1]): entry[2] for entry in part} for part in parts))

    async def view(self, image: Mapping[str, str]) -> bytes:
        """Return the bytes of a file that a node showed."""
        query = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
        try:
            async with self._session.get(f"{self.url}/view", params=query, timeout=_CALL) as answer:
                answer.raise_for_status()
                return await answer.read()
        except _FAILURES as error:
            raise self._gone(error) from None

    async def stop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it; no other is touched."""
        await self._post("/queue", {"delete": [prompt_id]})
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def forget(self, prompt_id: str, prefix: str) -> None:
        """Drop what ComfyUI keeps of a prompt: its history, and its files below our folder."""
        await self._post("/history", {"delete": [prompt_id]})
        await self._post(DROP_ROUTE, {"prefix": f"{prefix}_"})  # ComfyUI adds a number

    async def clear(self) -> None:
        """Stop and drop everything that this API's process before has left."""
        queue = await self.queue()
        for prompt_id, prompt in (queue.running | queue.pending).items():
            if self.is_ours(prompt):
                await self.stop(prompt_id)
        await self._post(DROP_ROUTE, {"prefix": self._mark})

    def is_ours(self, prompt: Prompt) -> bool:
        """Whether a prompt is this API's."""
        return _saves_as(prompt, f"{API_FOLDER}/{self._mark}")

    async def _get(self, path: str) -> Json:
        try:
            async with self._session.get(f"{self.url}{path}", timeout=_CALL) as answer:
                answer.raise_for_status()
                return cast("Json", await answer.json())
        except (*_FAILURES, ValueError) as error:
            raise self._gone(error) from None

    async def _post(self, path: str, body: Json) -> None:
        try:
            async with self._session.post(f"{self.url}{path}", json=body, timeout=_CALL) as answer:
                answer.raise_for_status()
        except _FAILURES as error:
            raise self._gone(error) from None

    def _gone(self, error: BaseException | str) -> WorkerLostError:
        reason = str(error) or type(error).__name__
        return WorkerLostError(f"ComfyUI at {self.url} does not answer ({reason}).")


def failure(entry: Mapping[str, Any]) -> str | None:
    """Return why a prompt of the history failed; None where it did not.

    An interrupted one has no reason: the text is empty.
    """
    status: Json = entry.get("status") or {}
    if status.get("status_str") == "success":
        return None
    messages: list[tuple[str, Json]] = status.get("messages", [])
    for kind, data in messages:
        if kind == "execution_error":
            return str(data.get("exception_message") or data.get("exception_type")).strip()
    return ""


def is_sick(why: str) -> bool:
    """Whether a failure tells of a GPU that the process cannot use any more: it must be new.

    One that is out of memory can.
    """
    return _SICK.search(why) is not None and "out of memory" not in why


def _saves_as(prompt: Prompt, prefix: str) -> bool:
    every: list[Json] = [node.get("inputs", {}) for node in prompt.values()]
    return any(str(each.get("filename_prefix")).startswith(prefix) for each in every)


def _why(text: str) -> str:
    """Return why ComfyUI refuses a prompt, from its answer."""
    try:
        answer: Json = json.loads(text)
        nodes: dict[str, dict[str, list[Json]]] = answer.get("node_errors") or {}
        errors = [
            str(error.get("details") or error.get("message"))
            for node in nodes.values()
            for error in node["errors"]
        ]
        return "; ".join(errors) or str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "ComfyUI refuses the prompt; its log says why."
