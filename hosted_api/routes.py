"""The routes of the hosted model's API: predictions, models, deployments and the small ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from ..errors import CallError
from . import views
from .ask import (
    HIDDEN,
    duration,
    is_name,
    read_call,
    split_version,
    stands_for,
    wait_seconds,
)
from .calls import answered, body_of, owner, priority
from .options import KNOWN, own_version
from .service import Service

PAGE: Final = 100
"""Predictions on a page."""

COGS: Final = {("POST", "/predictions"), ("POST", "/predictions/{id}/cancel")}
"""What a Cog container has at its root too, see `cog_routes`."""

SCHEMA: Final = Path(__file__).parents[1] / "prediction" / "schema.json"
BORN: Final = 1_732_000_000.0
"""When our versions were made, for clients that want to know; any moment does."""


class Hosted:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))

    def add_to(self, app: web.Application) -> None:
        """Add the routes, under every start of an address that clients make of their settings."""
        content = self._service.uploads.content
        app.router.add_get("/v1/files/{id}/content", content, name="open:file")
        for start in ("/v1", "/v1/v1", ""):
            for method, path, handler in self._routes():
                if start or (method, path) not in COGS:
                    app.router.add_route(method, f"{start}{path}", handler)

    def _routes(self) -> list[tuple[str, str, Any]]:
        model = "/models/{owner}/{name}"
        deployment = "/deployments/{owner}/{name}"
        uploads = self._service.uploads
        return [
            ("POST", "/predictions", self.create),
            ("GET", "/predictions", self.list),
            ("GET", "/predictions/{id}", self.get),
            ("POST", "/predictions/{id}/cancel", self.cancel),
            ("GET", "/models", self.models),
            ("QUERY", "/models", self.search),
            ("GET", model, self.model),
            ("POST", f"{model}/predictions", self.create_by_model),
            ("GET", f"{model}/versions", self.versions),
            ("GET", f"{model}/versions/{{version}}", self.version),
            ("POST", f"{model}/versions/{{version}}/predictions", self.create_by_model),
            ("GET", "/deployments", self.deployments),
            ("GET", deployment, self.deployment),
            ("POST", f"{deployment}/predictions", self.create_by_deployment),
            ("POST", "/files", uploads.create),
            ("GET", "/files", uploads.listed),
            ("GET", "/files/{id}", uploads.get),
            ("DELETE", "/files/{id}", uploads.delete),
            ("GET", "/account", self.account),
            ("GET", "/hardware", self.hardware),
            ("GET", "/webhooks/default/secret", self.secret),
        ]

    # --- predictions ---

    async def create(self, request: web.Request) -> web.Response:
        """Take a call whose body names the version."""
        return await self._create(request, await body_of(request))

    async def create_by_model(self, request: web.Request) -> web.Response:
        """Take a call whose address names the model."""
        version = request.match_info.get("version", HIDDEN)
        return await self._create(request, await body_of(request), _name(request), version)

    async def create_by_deployment(self, request: web.Request) -> web.Response:
        """Take a call to a deployment: a name that the administrator has mapped."""
        name = self._deployed(request)
        return await self._create(request, await body_of(request), name, own_version(name))

    async def _create(
        self, request: web.Request, body: Any, model: str = "", version: str = ""
    ) -> web.Response:
        service, headers = self._service, request.headers
        asked = read_call(
            body, service.options, model=model, version=version, issued=service.store.issued
        )
        limit = headers.get("Cancel-After")
        job = service.create(
            asked,
            owner(request),
            seconds=None if limit is None else duration(limit),
            again=headers.get("x-stainless-retry-count", "0") not in ("", "0"),
            key=headers.get("Idempotency-Key"),
            priority=priority(request),
        )
        seconds = wait_seconds(headers.get("Prefer", ""))
        if seconds is None:
            return answered(service.present.view(job), 201)
        job = await service.wait(job, seconds)
        return answered(service.present.waited(job), 201 if job.status.ended else 202)

    async def list(self, request: web.Request) -> web.Response:
        """Answer a page of the caller's predictions, the newest first."""
        query = request.query
        jobs = self._service.store.page(
            owner(request),
            PAGE + 1,
            before=_cursor(query.get("cursor")),
            after=_moment(query, "created_after", 0.0),
            until=_moment(query, "created_before", 1e12),
        )
        shown = [self._service.present.view(job, listed=True) for job in jobs[:PAGE]]
        following = None
        if len(jobs) > PAGE:
            last = jobs[PAGE - 1]
            cursor = base64.urlsafe_b64encode(json.dumps([last.created, last.id]).encode())
            rest = {
                name: query[name] for name in ("created_after", "created_before") if name in query
            }
            link = request.url.with_query({**rest, "cursor": cursor.decode()}).raw_path_qs
            following = f"{self._service.present.base()}/v1/predictions?{link.partition('?')[2]}"
        return answered(views.page(shown, following))

    async def get(self, request: web.Request) -> web.Response:
        """Answer one prediction."""
        job = self._service.get(request.match_info["id"], owner(request))
        return answered(self._service.present.view(job))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel one prediction; its whole object is the answer."""
        job = self._service.get(request.match_info["id"], owner(request))
        return answered(self._service.present.view(self._service.cancel(job)))

    # --- models ---

    async def models(self, request: web.Request) -> web.Response:
        """Answer the models that have a name here."""
        names = {name.partition(":")[0] for name in (*self._service.options.names, *KNOWN)}
        shown = [self._model(name) for name in sorted(filter(is_name, names))]
        return answered(views.page(shown, None))

    async def search(self, request: web.Request) -> web.Response:
        """Find nothing: there is no catalogue here."""
        return answered(views.page([], None))

    async def model(self, request: web.Request) -> web.Response:
        """Answer a model."""
        return answered(self._model(self._served(request)))

    async def versions(self, request: web.Request) -> web.Response:
        """Answer a model's versions: those that have a name here, else the one we give it."""
        name = self._served(request)
        return answered(views.page([self._version(each) for each in self._known(name)], None))

    async def version(self, request: web.Request) -> web.Response:
        """Answer a version; clients ask for it after a prediction, to learn its kind of output."""
        name, wanted = self._served(request), request.match_info["version"]
        if wanted != HIDDEN:
            split_version(wanted)
        stands_for(name, wanted, self._service.options)
        return answered(self._version(wanted))

    def _served(self, request: web.Request) -> str:
        name = _name(request)
        pinned = self._pinned(name)
        stands_for(name, pinned[0] if pinned else HIDDEN, self._service.options)
        return name

    def _known(self, name: str) -> list[str]:
        return self._pinned(name) or [self._own(name)]

    def _pinned(self, name: str) -> list[str]:
        start = f"{name}:"
        names = self._service.options.names
        return [each.removeprefix(start) for each in names if each.startswith(start)]

    def _own(self, name: str) -> str:
        """Return the version that we give a model, which calls may then name without the model."""
        version = own_version(name)
        if not self._service.options.model_of(version):
            self._service.store.issue(version, name)
        return version

    def _model(self, name: str) -> views.Json:
        owned, _, short = name.partition("/")
        url = f"{self._service.present.base()}/v1/models/{owned}/{short}"
        latest = self._version(self._known(name)[0])
        return views.model(name, latest, self._service.store.runs(name), url)

    def _version(self, version: str) -> views.Json:
        return views.version(version, BORN, self._schema)

    # --- deployments ---

    async def deployments(self, request: web.Request) -> web.Response:
        """Answer the mapped names as deployments."""
        names = sorted(filter(is_name, self._service.options.names))
        return answered(views.page([self._deployment(name) for name in names], None))

    async def deployment(self, request: web.Request) -> web.Response:
        """Answer a deployment."""
        return answered(self._deployment(self._deployed(request)))

    def _deployed(self, request: web.Request) -> str:
        name = _name(request)
        if name not in self._service.options.names:
            raise CallError(
                404,
                f"{name} is no deployment here. Give it a name in the file of --names.",
                title="Deployment not found",
            )
        return name

    def _deployment(self, name: str) -> views.Json:
        workers = len(self._service.dispatcher.pool.workers)
        return views.deployment(name, own_version(name), BORN, workers)

    # --- the rest ---

    async def account(self, request: web.Request) -> web.Response:
        """Answer whose account it is."""
        return answered(views.account())

    async def hardware(self, request: web.Request) -> web.Response:
        """Answer what there is to run on: this."""
        return answered([{"name": "This machine", "sku": "local"}])

    async def secret(self, request: web.Request) -> web.Response:
        """Answer the key that the caller's webhooks are signed with."""
        return answered({"key": self._service.webhook_key(owner(request))})


def _name(request: web.Request) -> str:
    name = f"{request.match_info['owner']}/{request.match_info['name']}"
    if not is_name(name):
        raise CallError(404, "There is no such model. Call it owner/name.", title="Model not found")
    return name


def _cursor(text: str | None) -> tuple[float, str] | None:
    if not text:
        return None
    try:
        created, job_id = json.loads(base64.urlsafe_b64decode(text))
        return float(created), str(job_id).encode().decode()
    except (ValueError, TypeError, OverflowError):
        raise CallError(422, "cursor: take it from `next`.", title="Invalid cursor") from None


def _moment(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name)
    if not text:
        return default
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise CallError(422, f"{name}: write a time in ISO 8601.", title="Invalid time") from None
