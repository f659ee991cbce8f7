"""Servers that never get to the point: a cancel is heard at once, and all waiting has an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from fetch.servers import Request
from fetch.world import World

from flux_hotswap.errors import CancelledError, FetchError, OfflineError
from flux_hotswap.files.plain import read_link

LONG = 20.0
"""Seconds after which a server of these tests gives up by itself."""
LATE = 1.0
"""Seconds that a machine with other work may be late."""


def drip(request: Request, text: bytes, *, ever: bytes) -> None:
    """Send a text, then the same few bytes again and again."""
    request.wfile.write(text)
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        request.wfile.write(ever)
        request.wfile.flush()
        time.sleep(0.05)
    request.close_connection = True


def silent(request: Request) -> None:
    time.sleep(LONG)
    request.close_connection = True


ERROR = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
PACKED = ERROR.replace(b"Content-Length", b"Content-Encoding: gzip\r\nContent-Length")

SERVERS: dict[str, Callable[[Request], None]] = {
    "a head that drips": lambda request: drip(request, b"HTTP/1.1 200 OK\r\nX-A: ", ever=b"a"),
    "a head of drips": lambda request: drip(request, b"HTTP/1.1 200 OK\r\n", ever=b"A: b\r\n"),
    "100 Continue": lambda request: drip(request, b"", ever=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a 404 that drips": lambda request: drip(request, ERROR, ever=b" "),
    "silence": silent,
}
REFUSED: dict[str, Callable[[Request], None]] = {
    "103 Early Hints": lambda request: drip(request, b"", ever=b"HTTP/1.1 103 Early\r\n\r\n"),
    "a packed 404 that drips": lambda request: drip(request, PACKED, ever=b"\x1f"),
}
"""Those that are not waited for at all."""

BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"


def later(seconds: float) -> Callable[[], bool]:
    """A cancel that is pressed after some time."""
    pressed = threading.Event()
    timer = threading.Timer(seconds, pressed.set)
    timer.daemon = True
    timer.start()
    return pressed.is_set


@pytest.fixture
def slow(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("flux_hotswap.files.answer.TEXT_SECONDS", 0.6)
    world.use(answer_seconds=0.6, attempts=2, backoff=0.01, read_timeout=10, stall_seconds=0.6)
    return world


@pytest.mark.parametrize("name", [*SERVERS, "a body that drips"])
@pytest.mark.parametrize("what", ["picture", "lora"])
def test_a_cancel_is_heard_within_a_second(world: World, name: str, what: str) -> None:
    world.cdn.fallback = SERVERS.get(name) or (lambda request: drip(request, BODY, ever=b"x"))
    begun, url = time.monotonic(), f"{world.cdn.url}/a.safetensors"
    with pytest.raises(CancelledError):
        if what == "lora":
            world.fetch(url, cancelled=later(0.3))
        else:
            read_link(
                url, settings=world.settings, max_bytes=2**20, seconds=60, cancelled=later(0.3)
            )
    assert time.monotonic() - begun < 0.3 + 1 + LATE


@pytest.mark.parametrize("name", [*SERVERS, *REFUSED])
@pytest.mark.parametrize("what", ["picture", "lora"])
def test_there_is_an_end_before_the_body(slow: World, name: str, what: str) -> None:
    """The connection is given up too: no thread waits on for a server that keeps sending."""
    slow.cdn.fallback = (SERVERS | REFUSED)[name]
    before = waiting()
    begun, url = time.monotonic(), f"{slow.cdn.url}/a.safetensors"
    with pytest.raises(FetchError) as failed:
        if what == "lora":
            slow.fetch(url)
        else:
            read_link(
                url, settings=slow.settings, max_bytes=2**20, seconds=60, cancelled=lambda: False
            )
    assert time.monotonic() - begun < 6
    assert url in str(failed.value) or "127.0.0.1" in str(failed.value)
    end = time.monotonic() + 3
    while time.monotonic() < end and waiting() - before:
        time.sleep(0.05)
    assert not waiting() - before


def waiting() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "lora-fetch"}


def test_a_picture_that_drips_has_an_end(slow: World) -> None:
    slow.cdn.fallback = lambda request: drip(request, BODY, ever=b"x")
    begun = time.monotonic()
    with pytest.raises(OfflineError, match="has not come within 1 s"):
        read_link(
            f"{slow.cdn.url}/a.png",
            settings=slow.settings,
            max_bytes=2**20,
            seconds=1,
            cancelled=lambda: False,
        )
    assert time.monotonic() - begun < 2 + LATE


@pytest.mark.parametrize("name", ["a head that drips", "100 Continue", "silence"])
def test_a_service_that_drips_has_an_end(slow: World, name: str) -> None:
    slow.hub.fallback = SERVERS[name]
    begun = time.monotonic()
    with pytest.raises(OfflineError):
        slow.fetch("hf:a/b/x.safetensors")
    assert time.monotonic() - begun < 6


def test_a_document_that_drips_has_an_end(slow: World) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
    slow.hub.fallback = lambda request: drip(request, head, ever=b" ")
    begun = time.monotonic()
    with pytest.raises(OfflineError):
        slow.fetch("hf:a/b")
    assert time.monotonic() - begun < 6
