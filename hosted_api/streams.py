"""A prediction as server-sent events: its log as it grows, its pictures, its end."""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from ..errors import CallError
from .job import Job, Status
from .service import Service

BEAT: Final = 15.0
"""Seconds after which a comment is sent, so that nobody in between closes the connection."""

ROUTE: Final = "/v1/stream/{id}"


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
        if not self._service.links.check(f"/v1/stream/{job_id}", request.query):
            raise CallError(
                403,
                "This address is not signed, or too old. Ask for the prediction again.",
                title="Forbidden",
            )
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
                await response.write(_event(number, "logs", job.logs[sent:]))
                sent, number = len(job.logs), number + 1
            if job.status.ended:
                break
            before = len(job.logs)
            job = await self._changed(job)
            if len(job.logs) == before and not job.status.ended:
                await response.write(b": \n\n")
        for event, text in self._end(job):
            await response.write(_event(number, event, text))
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


def _event(number: int, event: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in (text.splitlines() or [""]))
    return f"id: {number}\nevent: {event}\n{lines}\n".encode()
