"""Routes for those who run the API: health, metrics, the page; and the pictures' own addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import web

from ..errors import CallError
from .calls import answered, check_signed
from .cog_routes import index
from .job import Status
from .metrics import CONTENT_TYPE
from .served import file_response, type_of
from .service import Service

PAGE: Final = Path(__file__).with_name("page")
TYPES: Final = {".html": "text/html", ".css": "text/css", ".mjs": "text/javascript"}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Operate:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        add = app.router.add_get
        add("/livez", self.live, name="open:live")
        add("/readyz", self.ready, name="open:ready")
        add("/metrics", self.metrics)
        add("/", self.root, name="open:root")
        add("/page/{name}", self.page, name="open:page")
        add("/v1/outputs/{id}/{name}", self.output, name="open:output")

    async def live(self, request: web.Request) -> web.Response:
        """Answer whether the process does its work: 200, or 503 where it has to be started anew."""
        if self._service.faulty:
            return answered({"status": "failed"}, 503)
        return answered({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """Answer whether a prediction would be drawn now: 200, or 503 and why not."""
        dispatcher = self._service.dispatcher
        waiting = self._service.store.count(Status.QUEUED)
        workers = {worker.name: worker.state for worker in dispatcher.pool.workers}
        up = dispatcher.pool.ready
        full = waiting >= self._service.options.queue
        told = {"ready": up and not full, "waiting": waiting, "workers": workers}
        return answered(told, 200 if up and not full else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer the counts, as Prometheus reads them."""
        text = self._service.measured()
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Answer the page to a browser, and to a program what a Cog container says of itself."""
        if "text/html" in request.headers.get("Accept", ""):
            return _page("index.html")
        return answered(index(self._service.present.base()))

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Answer a file of the page."""
        return _page(request.match_info["name"])

    async def output(self, request: web.Request) -> web.StreamResponse:
        """Answer a picture; its address is signed, since clients read it without a token."""
        job_id, name = request.match_info["id"], request.match_info["name"]
        check_signed(self._service.links, f"/v1/outputs/{job_id}/{name}", request)
        path = self._service.outputs.path(job_id, name)
        if path is None:
            raise CallError(
                404, "The picture is gone. Ask for the prediction again.", title="Not found"
            )
        return file_response(path, type_of(path), f"{job_id}-{name}")


def _page(name: str) -> web.StreamResponse:
    path = PAGE / name
    if path.suffix not in TYPES or path.parent != PAGE or not path.is_file():
        raise CallError(404, "There is no such address; see /v1.", title="Not found")
    headers = {
        "Content-Type": f"{TYPES[path.suffix]}; charset=utf-8",
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.FileResponse(path, headers=headers)
