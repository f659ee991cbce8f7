"""A prediction as server-sent events: its log as it grows, its pictures, its end."""

from __future__ import annotations

import json
import re
from typing import Final

from aiohttp import web

from ..errors import CallError
from .calls import check_signed
from .job import Job, Status
from .service import Service

BEAT: Final = 15.0
"""Seconds after which a comment is sent, so that nobody in between closes the connection."""

ROUTE: Final = "/v1/stream/{id}"

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
"""As the format of server-sent events knows them, no other."""


class Streams:
    """The handler. The address is signed: one client sends no token with it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get(ROUTE, self.stream, name="open:stream")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send events until the prediction ends."""
        job_id = request.match_info["id"]
        check_signed(self._service.links, f"/v1/stream/{job_id}", request)
        job = self._service.store.get(job_id)
        if job is None:
            raise CallError(404, "There is no such prediction. Check its id.", title="Not found")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        await self._follow(job, response)
        await response.write_eof()
        return response

    async def _follow(self, job: Job, response: web.StreamResponse) -> None:
        sent, number = 0, 0
        while True:
            if len(job.logs) > sent:
                await response.write(encoded(number, "logs", job.logs[sent:]))
                sent, number = len(job.logs), number + 1
            if job.status.ended:
                break
            before = len(job.logs)
            job = await self._changed(job)
            if len(job.logs) == before and not job.status.ended:
                await response.write(b": \n\n")
        for event, text in self._end(job):
            await response.write(encoded(number, event, text))
            number += 1

    async def _changed(self, job: Job) -> Job:
        await self._service.changes.wait(job.id, BEAT)
        return self._service.store.get(job.id) or job

    def _end(self, job: Job) -> list[tuple[str, str]]:
        if job.status is Status.FAILED:
            return [("error", job.error), ("done", json.dumps({"reason": "error"}))]
        if job.status is Status.CANCELED:
            return [("done", json.dumps({"reason": "canceled"}))]
        addresses = self._service.present.addresses(job)
        return [*(("output", address) for address in addresses), ("done", "{}")]


def encoded(number: int, event: str, text: str) -> bytes:
    """Return an event as it is sent."""
    # Clients join the lines with line feeds: the last one is there only as an empty line after it.
    lines = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
    return f"id: {number}\nevent: {event}\n{lines}\n".encode()
