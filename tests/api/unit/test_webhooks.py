"""Webhooks: what real receivers get, with the faults that they have."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import logging
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from flux_hotswap.errors import RefusedError
from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.hosted_api import post, webhooks
from flux_hotswap.hosted_api.job import Event, Job, Status
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.webhooks import Webhooks, message_id, signature

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
        if isinstance(given, float):
            await asyncio.sleep(given)
            given = 200
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


@asynccontextmanager
async def here(tmp_path: Path, settings: Settings | None = None) -> AsyncIterator[Here]:
    store = Store(tmp_path / "jobs.sqlite")
    counted: list[tuple[str, str]] = []
    made = Webhooks(
        store, settings or Settings(allow=AllowList.parse("127.0.0.1")), SECRET,
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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as they are, but shorter."""
    monkeypatch.setattr(webhooks, "PAUSES", tuple(pause / SHORTER for pause in webhooks.PAUSES))
    monkeypatch.setattr(webhooks, "THROTTLE", webhooks.THROTTLE / 4)


def test_the_pauses_grow_for_minutes() -> None:
    assert webhooks.THROTTLE * 4 == 0.5
    assert list(webhooks.PAUSES) == sorted(webhooks.PAUSES)
    assert 60 <= sum(webhooks.PAUSES) * SHORTER <= 300


# --- the signature ---


def test_a_signature_is_the_standards() -> None:
    """The example of the Standard Webhooks specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
    body = b'{"test": 2432232314}'
    told = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_and_whole(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            here.finish(here.job(f"{there.url}?key=x"))
            (seen,) = await there.got(1)
            await here.idle()
        assert seen.path == "/hook?key=x"
        assert seen.headers["content-type"] == "application/json"
        assert seen.status == "succeeded"
        sent = int(seen.headers["webhook-timestamp"])
        assert abs(sent - time.time()) < 5
        told = f"{seen.headers['webhook-id']}.{sent}.".encode() + seen.body
        digest = hmac.digest(bytes(range(24)), told, hashlib.sha256)
        assert seen.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        assert here.counted == [("completed", "delivered")]

    run(tmp_path, test)


# --- messages that must arrive ---


@pytest.mark.parametrize("fault", [500, 503, 404, 429, "gone"])
def test_the_end_is_told_until_it_is_taken(tmp_path: Path, fault: Any) -> None:
    async def test(here: Here) -> None:
        async with receiver(fault, fault, 200) as there:
            here.finish(here.job(there.url))
            seen = await there.got(3)
            await here.idle()
        assert len({one.headers["webhook-id"] for one in seen}) == 1
        assert len({one.body for one in seen}) == 1
        first, second = (b.at - a.at for a, b in itertools.pairwise(seen))
        assert first >= webhooks.PAUSES[0] * 0.9
        assert second >= webhooks.PAUSES[1] * 0.9
        assert here.counted == [("completed", "failed")] * 2 + [("completed", "delivered")]

    run(tmp_path, test)


@pytest.mark.parametrize("answer", [410, 302, 204])
def test_an_answer_that_is_final(tmp_path: Path, answer: int) -> None:
    async def test(here: Here) -> None:
        async with receiver(answer) as there:
            here.finish(here.job(there.url))
            await there.got(1)
            await here.idle()
            await asyncio.sleep(10 * webhooks.PAUSES[0])
            assert [one.path for one in there.seen] == ["/hook"], "no redirect was followed"
        outcome = "delivered" if answer == 204 else "refused"
        assert here.counted == [("completed", outcome)]

    run(tmp_path, test)


def test_nobody_is_told_for_ever(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500) as there:
            here.finish(here.job(there.url))
            await there.got(len(webhooks.PAUSES) + 1)
            await here.idle()
        assert here.counted[-1] == ("completed", "given_up")

    run(tmp_path, test)


def test_nobody_there(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            url = there.url
        here.finish(here.job(url))
        await here.idle()
        many = len(webhooks.PAUSES)
        assert here.counted == [("completed", "failed")] * many + [("completed", "given_up")]

    run(tmp_path, test)


def test_the_start_is_told_once_and_first(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500, 200) as there:
            here.finish(here.job(there.url, start=True))
            seen = await there.got(2)
            await here.idle()
        assert [one.status for one in seen] == ["queued", "succeeded"]
        assert here.counted == [("start", "failed"), ("completed", "delivered")]

    run(tmp_path, test)


def test_only_what_was_asked_for_is_told(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url, ("start",), start=True)
            await here.webhooks.tell(job, Event.LOGS)
            here.finish(job)
            await there.got(1)
            await here.idle()
            silent = here.job("", ALL, start=True)
            await here.webhooks.tell(silent, Event.LOGS)
            here.finish(silent)
            await asyncio.sleep(0.05)
        assert here.counted == [("start", "delivered")]

    run(tmp_path, test)


def test_a_restart_tells_again_with_the_same_id(tmp_path: Path) -> None:
    async def whole() -> None:
        async with receiver(30.0, 200) as there:
            async with here(tmp_path) as first:
                first.finish(first.job(there.url))
                await there.got(1)
            async with here(tmp_path) as second:
                await there.got(2)
                await second.idle()
            one, two = there.seen
            assert one.headers["webhook-id"] == two.headers["webhook-id"]

    asyncio.run(whole())


def test_slow_ones_do_not_hold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(here: Here) -> None:
        async with receiver(30.0) as slow, receiver() as there:
            for _ in range(30):
                here.finish(here.job(slow.url))
            here.finish(here.job(there.url))
            began = time.monotonic()
            await there.got(1)
            assert time.monotonic() - began < 1
            assert len(slow.seen) <= 2

    run(tmp_path, test)


def test_a_receiver_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "post", _within(0.2))

    async def test(here: Here) -> None:
        async with receiver(30.0, 200) as there:
            here.finish(here.job(there.url))
            await there.got(2)
            await here.idle()
        assert here.counted == [("completed", "failed"), ("completed", "delivered")]

    run(tmp_path, test)


def _within(seconds: float) -> Callable[..., Coroutine[Any, Any, int]]:
    def posted(*given: Any) -> Coroutine[Any, Any, int]:
        return post.post(*given, seconds=seconds)

    return posted


def test_a_view_that_fails_ends_too(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.webhooks._view = lambda job: {"odd": job}  # no JSON
        async with receiver() as there:
            here.finish(here.job(there.url))
            await here.idle()
            assert there.seen == []
        assert here.counted[-1] == ("completed", "given_up")

    run(tmp_path, test)


# --- what happens in between ---


def test_in_between_at_most_twice_a_second(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url)
            for number in range(30):
                await here.webhooks.tell(replace(job, logs=str(number)), Event.LOGS)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            pauses = [b.at - a.at for a, b in itertools.pairwise(there.seen)]
            assert 3 <= len(there.seen) <= 5
            assert min(pauses) >= 0.9 * webhooks.THROTTLE
            assert len({one.headers["webhook-id"] for one in there.seen}) == len(there.seen)

    run(tmp_path, test)


def test_the_output_comes_before_the_end(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(0.1) as there:
            job = here.job(there.url)
            await here.webhooks.tell(job, Event.LOGS)
            await asyncio.sleep(0.05)
            await here.webhooks.tell(job, Event.LOGS)
            ended = here.finish(job)
            await here.webhooks.tell(ended, Event.OUTPUT)
            seen = await there.got(3)
            await here.idle()
        assert [one.status for one in seen] == ["running", "succeeded", "succeeded"]
        assert [event for event, _ in here.counted] == ["logs", "output", "completed"]

    run(tmp_path, test)


def test_logs_do_not_come_after_the_end(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url)
            here.finish(job)
            await here.webhooks.tell(job, Event.LOGS)
            await here.idle()
            await asyncio.sleep(0.05)
            assert [one.status for one in there.seen] == ["succeeded"]

    run(tmp_path, test)


def test_in_between_is_never_told_again(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500) as there:
            await here.webhooks.tell(here.job(there.url), Event.LOGS)
            await there.got(1)
            await asyncio.sleep(2 * webhooks.THROTTLE)
            assert len(there.seen) == 1
        assert here.counted == [("logs", "failed")]

    run(tmp_path, test)


# --- where they may go ---


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://host.internal/",
        "https://user:password@example.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com /",
        "https://exa\nmple.com/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://\u24d4xample.com/",
        "https://example\u3002com/",
        "https://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "",
        "https://example.com/" + "x" * 3000,
    ],
)
def test_addresses_that_are_refused_at_once(tmp_path: Path, url: str) -> None:
    async def test(here: Here) -> None:
        with pytest.raises(RefusedError, match=r"^webhook: "):
            here.webhooks.check(url)

    run(tmp_path, test, Settings())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?token=a%20b#c",
        "https://EXAMPLE.com:8443",
        "https://b\u00fccher.example/",
        "https://xn--bcher-kva.example./x",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "http://127.0.0.1:5000/",
    ],
)
def test_addresses_that_are_taken(tmp_path: Path, url: str) -> None:
    async def test(here: Here) -> None:
        here.webhooks.check(url)

    run(tmp_path, test, Settings(allow=AllowList.parse("127.0.0.1:5000")))


def test_a_name_that_leads_inside_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looked_up: list[str] = []

    def inside(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    async def test(here: Here) -> None:
        async with receiver() as there:
            port = there.url.rpartition(":")[2].partition("/")[0]
            url = f"https://rebind.example:{port}/private?token=secret"
            here.webhooks.check(url)
            assert looked_up == [], "nothing is looked up while the client waits"
            here.finish(here.job(url))
            await here.idle()
            assert there.seen == []
        assert here.counted == [("completed", "refused")]

    with caplog.at_level(logging.INFO):
        run(tmp_path, test, Settings(resolver=inside))
    assert looked_up == ["rebind.example"]
    assert "not on the public internet" in caplog.text
    assert "secret" not in caplog.text
    assert "private" not in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A certificate of hook.test and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=hook.test", "-keyout", key, "-out", cert,
         "-addext", "subjectAltName=DNS:hook.test"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield cert, key


@pytest.mark.parametrize(
    ("name", "outcomes"), [("hook.test", ["delivered"]), ("other.test", ["failed"])]
)
def test_the_certificate_is_of_the_name_and_the_connection_to_what_was_checked(
    tmp_path: Path, certificate: tuple[Path, Path], name: str, outcomes: list[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]  # the name is in no DNS, so only what was checked can be reached

    async def test(here: Here) -> None:
        async with receiver(tls=context) as there:
            url = there.url.replace("hook.test", name)
            here.finish(here.job(url))
            while not here.counted:
                await asyncio.sleep(0.01)
        assert [outcome for _, outcome in here.counted][:1] == outcomes
        if outcomes == ["delivered"]:
            assert there.seen[0].headers["host"].startswith("hook.test:")
            assert asked == ["hook.test"]
        else:
            assert there.seen == []

    allow = AllowList.parse("hook.test other.test")
    run(tmp_path, test, Settings(allow=allow, resolver=resolver, ca_bundle=str(certificate[0])))


def test_a_proxy_is_used_where_one_is_named(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def whole() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(proxy=f"http://127.0.0.1:{port}")
        async with server, here(tmp_path, settings) as made:
            made.finish(made.job("https://example.com/hook?token=secret"))
            while not made.counted:
                await asyncio.sleep(0.01)

    asyncio.run(whole())
    assert asked[0] == b"CONNECT example.com:443 HTTP/1.1\r\n"
