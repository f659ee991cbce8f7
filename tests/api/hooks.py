"""Receivers of webhooks with faults, and our side that tells them."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.hosted_api.job import Event, Job, Status
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.webhooks import Webhooks, message_id

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
SHORTER = 500
ALL = tuple(event.value for event in Event)


@dataclass
class Seen:
    """One request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def status(self) -> str:
        return str(json.loads(self.body)["status"])


@dataclass
class Receiver:
    """A server that answers in turn what it is told; the last answer stays."""

    answers: list[Any] = field(default_factory=lambda: [200])
    seen: list[Seen] = field(default_factory=list[Seen])
    url: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path_qs, headers, body, time.monotonic()))
        self.came.set()
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        seconds, given = given if isinstance(given, tuple) else (0.0, given)
        if isinstance(given, float):
            seconds, given = given, 200
        await asyncio.sleep(seconds)
        if given == "gone":
            assert request.transport
            request.transport.abort()
        where = {"Location": "/elsewhere"} if given == 302 else {}
        return web.Response(status=500 if given == "gone" else given, headers=where)

    async def got(self, many: int, seconds: float = 5.0) -> list[Seen]:
        end = time.monotonic() + seconds
        while len(self.seen) < many and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert len(self.seen) == many
        return self.seen


@asynccontextmanager
async def receiver(*answers: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(list(answers) or [200])
    app = web.Application()
    app.router.add_post("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    port = runner.addresses[0][1]
    made.url = f"https://hook.test:{port}/x" if tls else f"http://127.0.0.1:{port}/hook"
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Here:
    """Our side: a store with jobs, and what tells of them."""

    store: Store
    webhooks: Webhooks
    counted: list[tuple[str, str]]
    number: int = 0

    def job(self, url: str, events: tuple[str, ...] = ALL, *, start: bool = False) -> Job:
        """Add a job that runs."""
        self.number += 1
        job = Job(
            id=f"job{self.number}", model="a/b", version="c", input={}, request={},
            created=time.time(), deadline=time.time() + 60, webhook=url, events=events,
        )  # fmt: skip
        self.store.add(job, digest="", message=message_id() if start else "")
        leased = self.store.lease(job.id, "w", time.time())
        assert leased
        return leased

    def finish(self, job: Job) -> Job:
        ended = self.store.finish(
            job.id, job.attempt, Status.SUCCEEDED, time.time(), message=message_id()
        )
        assert ended
        self.webhooks.poke()
        return ended

    async def idle(self, seconds: float = 5.0) -> None:
        """Wait until nothing is left to be delivered."""
        end = time.monotonic() + seconds
        while self.store.next_due() is not None and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert self.store.next_due() is None


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Another process writes to a database: nobody else may."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@asynccontextmanager
async def here(tmp_path: Path, settings: Settings | None = None) -> AsyncIterator[Here]:
    store = Store(tmp_path / "jobs.sqlite")
    counted: list[tuple[str, str]] = []
    made = Webhooks(
        store, settings or Settings(allow=AllowList.parse("127.0.0.1")), lambda _: SECRET,
        lambda job: {"id": job.id, "status": job.status.value}, time.time,
        count=lambda *told: counted.append(told),
    )  # fmt: skip
    running = asyncio.ensure_future(made.run())
    try:
        yield Here(store, made, counted)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.close()


Test = Callable[[Here], Coroutine[Any, Any, None]]


def run(tmp_path: Path, test: Test, settings: Settings | None = None) -> None:
    async def whole() -> None:
        async with here(tmp_path, settings) as made:
            await test(made)

    asyncio.run(whole())
