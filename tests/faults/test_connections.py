"""One file over several connections, and what happens when they break."""

from __future__ import annotations

import time

import pytest
from fetch.servers import File, Request, lora, sha256
from fetch.world import World

from flux_hotswap.errors import CancelledError

BIG = lora(6 * 2**20)


@pytest.fixture
def split(world: World) -> World:
    """A world in which a second of patience is too much for one connection."""
    world.use(
        probe_seconds=0.05, parallel_from=2**20, piece_bytes=2**20, connections=6, sleep=time.sleep
    )
    return world


def test_several_connections(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG, rate=4_000_000)
    seen: list[int] = []
    found = split.fetch(url, progress=lambda done, _: seen.append(done))
    assert found.sha256 == sha256(BIG)
    assert found.path.read_bytes() == BIG
    assert len(split.cdn.seen) > 4
    assert seen == sorted(seen)
    assert {seen.headers.get("if-range") for seen in split.cdn.seen[1:]} == {'"one"'}


def test_several_connections_before_the_first_byte_is_on_disk(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG)
    routes = [File(BIG, rate=5), File(BIG)]

    def slow_at_first(request: Request) -> None:
        (routes.pop(0) if len(routes) > 1 else routes[0])(request)

    split.cdn.routes["/a.safetensors"] = slow_at_first
    assert split.fetch(url).path.read_bytes() == BIG
    # Connections ask in any order; one of them for the start.
    assert any(seen.headers["range"].startswith("bytes=0-") for seen in split.cdn.seen[1:])


def test_several_connections_with_only_the_hash_to_go_by(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG, rate=4_000_000, etags=[""])
    assert split.fetch(f"{url}#sha256={sha256(BIG)}").path.read_bytes() == BIG
    assert len(split.cdn.seen) > 4


def test_server_that_allows_only_a_few_connections(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG, rate=4_000_000, connections=2)
    assert split.fetch(url).path.read_bytes() == BIG


def test_pieces_get_smaller_towards_the_end(split: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_hotswap.files.parallel.MIN_PIECE", 2**16)
    url = split.cdn.file("/a.safetensors", BIG, rate=8_000_000)
    assert split.fetch(url).path.read_bytes() == BIG
    spans = [seen.headers["range"].removeprefix("bytes=").split("-") for seen in split.cdn.seen[1:]]
    sizes = [int(last) + 1 - int(start) for start, last in sorted(spans, key=lambda s: int(s[0]))]
    assert len(sizes) > 12
    assert sizes[0] > 4 * 2**16
    assert all(size <= 2**16 for size in sizes[-4:])


def test_connections_that_break(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG, rate=8_000_000)
    route = split.cdn.routes["/a.safetensors"]
    assert isinstance(route, File)
    served: list[int] = []

    def breaking(request: Request) -> None:
        served.append(1)
        if len(served) == 3:
            route.cut.append(100_000)
        route(request)

    split.cdn.routes["/a.safetensors"] = breaking
    assert split.fetch(url).path.read_bytes() == BIG


def test_connections_that_end_without_a_word(split: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_hotswap.files.parallel.Pieces.workers", lambda _: [])
    url = split.cdn.file("/a.safetensors", BIG, rate=20_000_000)
    assert split.fetch(url).path.read_bytes() == BIG


def test_a_slow_disk_slows_the_network_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_hotswap.files.pump.AHEAD", 1)
    monkeypatch.setattr("flux_hotswap.files.pump.TICK", 0.01)
    url = world.cdn.file("/a.safetensors", lora(2_000_000))

    def slow(done: int, total: int | None) -> None:
        time.sleep(0.05)

    assert world.fetch(url, progress=slow).size > 2_000_000


@pytest.mark.parametrize("fault", ["refused", "whole", "other-state", "too-much"])
def test_back_to_one_connection(split: World, fault: str) -> None:
    """A server whose second connection gives nothing usable still gives the file over one."""
    url = split.cdn.file("/a.safetensors", BIG, rate=20_000_000)
    route = split.cdn.routes["/a.safetensors"]
    assert isinstance(route, File)

    def picky(request: Request) -> None:
        if not request.headers["Range"].endswith("-"):
            if fault == "refused":
                request.reply(503)
                return
            if fault == "whole":
                request.reply(200, b"x" * 100)
                return
            if fault == "too-much":
                start, last = request.headers["Range"].removeprefix("bytes=").split("-")
                span = f"bytes {start}-{last}/{len(BIG)}"
                request.reply(206, b"x" * 2**21, etag='"one"', content_range=span)
                return
            request.reply(206, b"x", etag='"two"', content_range=f"bytes 0-0/{len(BIG)}")
            return
        route(request)

    split.cdn.routes["/a.safetensors"] = picky
    assert split.fetch(url).path.read_bytes() == BIG


def test_cancel_of_several_connections_leaves_a_sound_start(split: World) -> None:
    url = split.cdn.file("/a.safetensors", BIG, rate=2_000_000)
    begun = len(BIG) // 3
    seen: list[int] = []
    with pytest.raises(CancelledError):
        split.fetch(
            url,
            progress=lambda done, _: seen.append(done),
            cancelled=lambda: bool(seen and seen[-1] > begun),
        )
    split.cdn.file("/a.safetensors", BIG)
    assert split.fetch(url).path.read_bytes() == BIG
