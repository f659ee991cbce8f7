"""The routes of a Cog container, at the root: for code that calls the model's own server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web

from ..errors import CallError
from . import views
from .ask import HIDDEN, read_call
from .calls import answered, body_of, owner, priority
from .job import COG
from .options import UNNAMED
from .routes import SCHEMA, Hosted
from .service import Service, owner_of

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Cog:
    """The handlers; `stop` ends the server."""

    def __init__(self, service: Service, hosted: Hosted, stop: Callable[[], None]) -> None:
        self._service = service
        self._hosted = hosted
        self._stop = stop

    def add_to(self, app: web.Application) -> None:
        """Add the routes. Those of the hosted API are asked first where both have an address."""
        add = app.router.add_route
        add("POST", "/predictions", self.create)
        add("PUT", "/predictions/{id}", self.put)
        add("POST", "/predictions/{id}/cancel", self.cancel)
        add("GET", "/health-check", self.health, name="open:cog-health")
        add("GET", "/openapi.json", self.openapi, name="open:cog-openapi")
        add("POST", "/shutdown", self.shutdown)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Run a prediction; with a `version` in the body it is a call of the hosted API."""
        body = await body_of(request)
        job_id = _id_in(body)
        if isinstance(body, dict) and "version" in body:
            return await self._hosted.create(request)
        return await self._named(request, body, job_id)

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Run a prediction under an id; the same id again is the same prediction."""
        job_id = request.match_info["id"]
        body = await body_of(request)
        if _id_in(body) not in ("", job_id):
            told = {
                "loc": ["body", "id"],
                "msg": "is another than in the path",
                "type": "value_error",
            }
            return answered({"detail": [told]}, 422)
        return await self._named(request, body, job_id)

    async def _named(self, request: web.Request, body: Any, job_id: str) -> web.StreamResponse:
        """Run a prediction under an id that the caller chose; without one it gets its own."""
        if job_id and not _ID.fullmatch(job_id):
            words = "id: use a-z, A-Z, 0-9, _ and -, 64 at most."
            return answered(views.cog_problem(words, ()), 422)
        if not job_id or self._service.store.get(job_id) is None:
            return await self._run(request, body, job_id)
        known = self._service.get(job_id, owner(request))
        if known.status.ended:
            return answered(self._service.present.cog(known))
        return answered({**self._service.present.cog(known), "input": known.input}, 202)

    async def _run(self, request: web.Request, body: Any, job_id: str) -> web.StreamResponse:
        try:
            asked = read_call(body, self._service.options, model=UNNAMED, version=HIDDEN)
            job = self._service.create(
                asked, owner(request), source=COG, job_id=job_id, priority=priority(request)
            )
        except CallError as error:
            if error.status != 422:
                raise
            return answered(views.cog_problem(str(error), error.fields), 422)
        if request.headers.get("Prefer", "").strip().lower() == "respond-async":
            return answered({"id": job.id, "status": "starting"}, 202)
        try:
            while not job.status.ended:
                job = await self._service.wait(job, 60.0)
        except asyncio.CancelledError:
            if not self._service.stopping:  # the client has gone
                self._service.cancel(job)
            raise
        return answered(self._service.present.cog(job))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a prediction; its object is the answer where the hosted API made it."""
        job = self._service.store.get(request.match_info["id"])
        if job is None or job.owner != owner(request):
            return answered({}, 404)
        if job.source != COG:
            return await self._hosted.cancel(request)
        if job.status.ended:
            return answered({}, 404)
        self._service.cancel(job)
        return answered({})

    async def health(self, request: web.Request) -> web.Response:
        """Answer how it is; the status of the answer is always 200."""
        dispatcher = self._service.dispatcher
        up = sum(worker.up for worker in dispatcher.pool.workers)
        ready = dispatcher.pool.ready
        status = "STARTING" if not ready else "BUSY" if len(dispatcher.busy) >= up > 0 else "READY"
        setup = {"status": "succeeded" if ready else "starting", "logs": ""}
        return answered({"status": status, "setup": setup})

    async def openapi(self, request: web.Request) -> web.Response:
        """Answer the schema of the fields."""
        return answered(json.loads(SCHEMA.read_text(encoding="utf-8")))

    async def shutdown(self, request: web.Request) -> web.Response:
        """End the server.

        Raises:
            CallError: it is not for the caller to do.
        """
        tokens = self._service.options.tokens
        if tokens and owner(request) != owner_of(next(iter(tokens))):
            raise CallError(
                403,
                "Only the first token of the server's file may end it; send that.",
                title="Forbidden",
            )
        self._stop()
        return answered({})


def _id_in(body: object) -> str:
    return str(cast("dict[str, object]", body).get("id") or "") if isinstance(body, dict) else ""


def index(base: str) -> views.Json:
    """Return what a Cog container answers at its root."""
    return {
        "cog_version": views.COG_VERSION,
        "docs_url": "/docs",
        "openapi_url": "/openapi.json",
        "shutdown_url": "/shutdown",
        "healthcheck_url": "/health-check",
        "predictions_url": "/predictions",
        "predictions_idempotent_url": "/predictions/{prediction_id}",
        "predictions_cancel_url": "/predictions/{prediction_id}/cancel",
        "hosted_api_url": f"{base}/v1",
    }
