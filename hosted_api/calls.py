"""What all handlers share: who calls, what a body says, and how an error is answered."""

from __future__ import annotations

import hmac
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from ..errors import CallError, HotswapError, RefusedError
from . import views
from .links import Links
from .metrics import Metrics
from .options import Options, is_loopback
from .service import owner_of

OPEN: Final = "open:"
"""How the names of routes begin that need no token: signed ones, and those of machines.

Pages of other sites may show what is there, and lead to it: that takes the address alone. What they
show they cannot read, as no answer says that they may.
"""

_KEY: Final[Any] = getattr(web, "RequestKey", None)
_OWNER: Final[Any] = _KEY("owner", str) if _KEY else "owner"
"""Where a request holds who calls: since aiohttp 3.14 a key of its own kind, before a name."""

_NO_STORE: Final = CallError(
    503, "The server cannot keep anything now; see its log, and try again.", title="Unavailable"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


def answered(told: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer in JSON."""
    return web.json_response(told, status=status, headers=headers)


def owner(request: web.Request) -> str:
    """Return who calls, as `guard` found it."""
    return str(request.get(_OWNER, ""))


def priority(request: web.Request) -> str:
    """Return what a call's header `Priority` says; several are one, with commas."""
    return ", ".join(request.headers.getall("Priority", []))


def check_signed(links: Links, path: str, request: web.Request) -> None:
    """See that the address of a prediction's picture or events is one of ours.

    Raises:
        CallError: it is not, or not any more.
    """
    if not links.check(path, request.query):
        raise CallError(
            403,
            "This address is not signed, or too old. Ask for the prediction again.",
            title="Forbidden",
        )


async def body_of(request: web.Request) -> Any:
    """Return what a call says; an empty object where it says nothing.

    Raises:
        CallError: it is no JSON.
    """
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise CallError(
            400,
            "The body is no JSON; send an object with the fields under input.",
            title="Bad body",
        ) from None


def _of_another_site(request: web.Request, public: str | None) -> bool:
    """Whether a page of another site makes a browser call this."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    place = urlsplit(origin)
    return place.netloc != request.host and (place.hostname is None or place.hostname != public)


class Guard:
    """Knows who calls, and who may not."""

    def __init__(self, options: Options) -> None:
        self._tokens = [token.encode() for token in options.tokens]
        self._public = urlsplit(options.public).hostname

    def owner(self, request: web.Request) -> str:
        """Return whose call it is; empty where nobody has to say.

        Raises:
            CallError: it may not be made.
        """
        is_open = (request.match_info.route.name or "").startswith(OPEN)
        if not is_open and _of_another_site(request, self._public):
            raise CallError(
                403,
                "Pages of other sites may not call this. Call it from your own code.",
                title="Forbidden",
            )
        if not self._tokens:
            self._check_host(request)
            return ""
        if is_open:
            return ""
        return self._by_token(request.headers.get("Authorization", ""))

    def _check_host(self, request: web.Request) -> None:
        """Everybody on this machine may call, but no page in a browser of it.

        Not by a name either that somebody lets lead here.
        """
        host = urlsplit(f"//{request.host}").hostname or ""
        if not is_loopback(host) and host != self._public:
            raise CallError(403, "Use this by its own address, see --public.", title="Forbidden")

    def _by_token(self, header: str) -> str:
        kind, _, given = header.partition(" ")
        sent = given.strip().encode("utf-8", "surrogateescape")
        found = [token for token in self._tokens if hmac.compare_digest(token, sent)]
        if kind.lower() not in ("bearer", "token") or not found:
            raise CallError(
                401,
                "Send one of this server's tokens as Authorization: Bearer.",
                title="Unauthenticated",
            )
        return owner_of(found[0].decode())


def counted(metrics: Metrics) -> Any:
    """Return the middleware that counts the calls, by the address as it is declared."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        resource = request.match_info.route.resource
        route = "none" if resource is None else resource.canonical
        status = str(response.status)
        metrics.requests.add(method=request.method, route=route, status=status)
        return response

    return middleware


def guarded(options: Options) -> Any:
    """Return the middleware that lets in whom it may, and answers errors."""
    guard = Guard(options)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            request[_OWNER] = guard.owner(request)
            return await handler(request)
        except HotswapError as error:
            return problem(_refusal(error, request))
        except web.HTTPException as error:
            return problem(_known(error, options))
        except sqlite3.Error as error:  # the disk is full, or somebody holds the file
            log.error("%s %s: %s", request.method, request.path, error)
            return problem(_NO_STORE)

    return middleware


def _refusal(error: HotswapError, request: web.Request) -> CallError:
    if isinstance(error, CallError):
        return error
    if isinstance(error, RefusedError):
        return CallError(422, str(error), title="Not allowed")
    # Its message may hold what was sent.
    log.exception("%s %s", request.method, request.path)
    return CallError(500, "The server failed; see its log.", title="Failed")


def _known(error: web.HTTPException, options: Options) -> CallError:
    words = {
        404: "There is no such address.",
        405: "This address is not called in this way.",
        413: f"A body has {options.body // 2**20} MB at most.",
    }
    return CallError(error.status, words.get(error.status, error.reason), title=error.reason)


def problem(error: CallError) -> web.Response:
    """Return an error as the hosted model's API answers it."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    told = views.problem(error.status, error.title, str(error), error.fields)
    if error.retry_after is not None:
        told["retry_after"] = error.retry_after
    return answered(told, error.status, headers)
