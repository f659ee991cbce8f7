"""ComfyUI's prompt for a prediction: the workflow that serves its request, filled with that."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from ..errors import InputError, SettingsError
from ..prediction.fill import Prompt, fill_prompt, workflow_for
from .ask import PICTURES
from .job import Job
from .sources import Sources

WORKFLOWS: Final = Path(__file__).parents[1] / "workflows" / "api"

Workflow: TypeAlias = "Callable[[Mapping[str, Any]], Prompt]"
"""Gives the API prompt that serves a request."""


def read_workflow(own: Path | None) -> Workflow:
    """Return the workflow of a file, or the shipped ones, each for the requests that it serves.

    Raises:
        SettingsError: the file holds none.
    """
    if own is not None:
        prompt = _read_prompt(own)
        return lambda _: prompt
    shipped = {path.stem: _read_prompt(path) for path in WORKFLOWS.glob("*.json")}
    return lambda request: shipped[workflow_for(request)]


class Prompts:
    """Fills prompts.

    Args:
        workflow: what is filled.
        sources: the pictures that lie here.
    """

    def __init__(self, workflow: Workflow, sources: Sources) -> None:
        self._workflow = workflow
        self._sources = sources

    async def of(self, job: Job) -> Prompt:
        """Return a job's prompt, with the pictures that lie here as data in it.

        ComfyUI decodes them: what they are is not looked at here.

        Raises:
            RequestError: the workflow has no way to take one of the fields.
            InputError: a picture of ours has gone since it was asked for.
        """
        request = dict(job.request)
        for name in PICTURES:
            text = str(request.get(name) or "")
            path = self._sources.find(job.owner, text)
            if path is not None:
                request[name] = await asyncio.to_thread(_as_data, path)
            elif self._sources.is_here(text):
                raise InputError(f"{name}: it is not there any more; send it to /v1/files again")
        return fill_prompt(self._workflow(request), request)


def _as_data(path: Path) -> str:
    digits = base64.b64encode(path.read_bytes()).decode()
    return f"data:application/octet-stream;base64,{digits}"


def _read_prompt(path: Path) -> Prompt:
    with contextlib.suppress(ValueError, OSError):
        read: object = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(read, dict):
            return cast("Prompt", read)
    raise SettingsError(
        f"--workflow {path} is no API prompt. Save one with the editor's Export (API)."
    )
