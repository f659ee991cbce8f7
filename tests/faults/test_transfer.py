"""What a network does to a transfer, and that the file is whole or not there."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fetch.servers import File, Request, lora, sha256, tar
from fetch.world import World

from flux_hotswap.errors import BadFileError, FetchError, NotFoundError, OfflineError, RefusedError

DATA = lora(300_000)
OTHER = lora(300_000, seed=1)


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        pytest.param({}, 1, id="sound"),
        pytest.param({"cut": [1000]}, 2, id="cut-once"),
        pytest.param({"cut": [100_000, 100_000, 5]}, 4, id="cut-three-times"),
        pytest.param({"cut": [0, 0]}, 3, id="cut-before-the-first-byte"),
        pytest.param({"cut": [1000], "ranges": False}, 2, id="cut-and-no-ranges"),
        pytest.param({"cut": [1000], "etags": [""]}, 2, id="cut-and-nothing-to-compare"),
        pytest.param({"cut": [1000], "etags": ['W/"weak"']}, 2, id="cut-and-weak-etag"),
        pytest.param({"ranges": False}, 1, id="no-ranges"),
        pytest.param({"statuses": [(500, {}), (502, {})]}, 3, id="500-and-502"),
        pytest.param({"statuses": [(429, {"retry_after": "7"})]}, 2, id="429"),
        pytest.param({"headers": {"Content-Type": "text/plain"}}, 1, id="odd-content-type"),
    ],
)
def test_arrives_whole(world: World, faults: dict[str, Any], requests: int) -> None:
    url = world.cdn.file("/a.safetensors", DATA, **faults)
    found = world.fetch(url)
    assert found.path.read_bytes() == DATA
    assert (found.sha256, found.size) == (sha256(DATA), len(DATA))
    assert len(world.cdn.seen) == requests
    assert world.leftovers() == []


def test_resume_asks_only_for_the_rest_and_pins_the_state(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, cut=[100_000])
    world.fetch(url)
    second = world.cdn.seen[1].headers
    assert second["range"] == "bytes=100000-"
    assert second["if-range"] == '"one"'


@pytest.mark.parametrize("obeys", [True, False], ids=["if-range-obeyed", "if-range-ignored"])
def test_a_file_that_changes_in_between_is_begun_again(world: World, obeys: bool) -> None:
    world.cdn.file("/a.safetensors", DATA, cut=[100_000], etags=['"one"', '"two"'], if_range=obeys)
    route: Any = world.cdn.routes["/a.safetensors"]
    asked: list[int] = []

    def change(request: Any) -> None:
        asked.append(1)
        if len(asked) == 2:
            route.data = OTHER
        route(request)

    world.cdn.routes["/a.safetensors"] = change
    assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == OTHER


def test_retry_after_is_obeyed(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, statuses=[(429, {"retry_after": "7"})])
    world.fetch(url)
    assert sum(world.clock.slept) == pytest.approx(7)


def test_backoff_doubles(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, statuses=[(500, {})] * 3)
    world.fetch(url)
    assert sum(world.clock.slept) == pytest.approx(0.5 + 1 + 2)


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        pytest.param({"statuses": [(500, {})] * 9}, OfflineError, "HTTP 500", id="500-for-good"),
        pytest.param(
            {"statuses": [(429, {"retry_after": "9000"})]}, OfflineError, "busy", id="long-wait"
        ),
        pytest.param({"cut": [0] * 9}, OfflineError, "broke off", id="cut-for-good"),
        pytest.param({"statuses": [(404, {})]}, NotFoundError, "nothing there", id="404"),
        pytest.param({"statuses": [(403, {})]}, FetchError, "refuses", id="403"),
        pytest.param({"statuses": [(204, {})] * 9}, OfflineError, "HTTP 204", id="204"),
        pytest.param(
            {"claim": 400_000, "ranges": False}, OfflineError, "broke off", id="claims-too-much"
        ),
        pytest.param({"claim": 200_000, "ranges": False}, BadFileError, "claims|need", id="short"),
        pytest.param(
            {"headers": {"Content-Range": "bytes 5-9/10"}}, OfflineError, "changed", id="wrong-span"
        ),
    ],
)
def test_fails_with_its_own_words(
    world: World, faults: dict[str, Any], error: type[FetchError], words: str
) -> None:
    url = world.cdn.file("/a.safetensors", DATA, **faults)
    with pytest.raises(error, match=words) as caught:
        world.fetch(url)
    assert "127.0.0.1" in str(caught.value)
    assert not list(world.loras.rglob("*.safetensors"))


def test_a_web_page_with_status_200(world: World) -> None:
    page = b"<!DOCTYPE html><html>Log in first</html>" + b" " * 2_000
    url = world.cdn.file("/a.safetensors", page, headers={"Content-Type": "text/html"})
    with pytest.raises(BadFileError, match="a web page"):
        world.fetch(url)
    assert world.leftovers() == []


def test_a_short_web_page(world: World) -> None:
    url = world.cdn.file("/a.safetensors", b"<html>no</html>")
    with pytest.raises(BadFileError, match="a web page"):
        world.fetch(url)
    assert world.leftovers() == []


def login(request: Request) -> None:
    request.reply(200, b"<!doctype html>Too many have downloaded this", content_type="text/html")


def inwards(request: Request) -> None:
    request.reply(302, b"", location="https://10.0.0.1/portal")


def compressed(request: Request) -> None:
    request.reply(206, b"x", content_encoding="gzip")


@pytest.mark.parametrize("route", [login, inwards, compressed, None])
def test_a_refusal_leaves_what_is_here(world: World, route: Any) -> None:
    """Gigabytes may have come before a proxy asks for a login."""
    url = world.cdn.file("/a.safetensors", DATA, cut=[100_000])
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(url)
    world.use(offline=route is None)
    world.cdn.routes["/a.safetensors"] = route
    with pytest.raises((BadFileError, RefusedError)):
        world.fetch(url)
    world.use(offline=False)
    world.cdn.file("/a.safetensors", DATA)
    assert world.fetch(url).path.read_bytes() == DATA
    assert world.cdn.seen[-1].headers["range"] == "bytes=100000-"
    assert world.leftovers() == []


@pytest.mark.parametrize("route", [login, inwards, compressed])
def test_a_refusal_of_some_connections_leaves_what_is_here(world: World, route: Any) -> None:
    """One alone goes on after the pieces that came."""
    data = lora(3 * 2**20)
    world.use(parallel_from=2**20, probe_seconds=0.05, piece_bytes=2**19, connections=4)
    served = File(data, rate=4_000_000)

    def some(request: Request) -> None:
        (served if request.headers["Range"].endswith("-") else route)(request)

    world.cdn.routes["/a.safetensors"] = some
    assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == data
    starts = [seen.headers["range"] for seen in world.cdn.seen]
    assert starts[0] == "bytes=0-"
    assert starts[-1].endswith("-")
    assert starts[-1] != "bytes=0-"
    assert len(starts) > 2


def test_chunked_without_a_length(world: World) -> None:
    def chunked(request: Any) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for at in range(0, len(DATA), 50_000):
            piece = DATA[at : at + 50_000]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    world.cdn.routes["/a.safetensors"] = chunked
    assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == DATA


def test_slow_drip_is_given_up_in_time(world: World) -> None:
    world.use(stall_seconds=0.2, attempts=2)
    url = world.cdn.file("/a.safetensors", DATA, rate=2_000)
    with pytest.raises(OfflineError, match="all but stopped"):
        world.fetch(url)


def test_slow_but_steady_is_not_given_up(world: World) -> None:
    world.use(stall_seconds=0.05, stall_bytes=100)
    url = world.cdn.file("/a.safetensors", DATA, rate=1_500_000)
    assert world.fetch(url).path.read_bytes() == DATA


def test_server_that_answers_only_a_part_at_a_time(world: World) -> None:
    def partly(request: Any) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        end = min(start + 70_000, len(DATA))
        span = f"bytes {start}-{end - 1}/{len(DATA)}"
        request.reply(206, DATA[start:end], content_range=span, etag='"one"')

    world.cdn.routes["/a.safetensors"] = partly
    assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == DATA
    assert len(world.cdn.seen) == 5


def test_server_that_sends_more_than_it_says(world: World) -> None:
    world.cdn.routes["/a.safetensors"] = lambda request: request.reply(
        206, DATA, content_range="bytes 0-9/10", etag='"one"'
    )
    with pytest.raises(BadFileError, match="more than it says"):
        world.fetch(world.cdn.url + "/a.safetensors")
    assert world.leftovers() == []


@pytest.mark.parametrize("cut", [700, 200_000], ids=["before-the-file", "inside-the-file"])
def test_tar_that_changes_in_between(world: World, cut: int) -> None:
    name, data = "o/lora.safetensors", tar(("notes.txt", b"x" * 600), ("o/lora.safetensors", DATA))
    other = tar((name, OTHER), ("notes.txt", b"x" * 600))
    url = world.cdn.file("/a.tar", data, cut=[cut], etags=['"one"', '"two"'])
    route: Any = world.cdn.routes["/a.tar"]

    def change(request: Any) -> None:
        if request.headers["Range"] != "bytes=0-":
            route.data = other
        route(request)

    world.cdn.routes["/a.tar"] = change
    assert world.fetch(url).path.read_bytes() == OTHER


def test_tar_cut_often(world: World) -> None:
    data = tar(("notes.txt", b"x" * 600), ("o/lora.safetensors", DATA), ("b.txt", b"y"))
    url = world.cdn.file("/a.tar", data, cut=[700, 500, 70_000, 100_000, 130_000, 400])
    assert world.fetch(url).path.read_bytes() == DATA


def test_server_that_takes_its_time_to_answer(world: World) -> None:
    world.cdn.file("/a.safetensors", DATA)
    route = world.cdn.routes["/a.safetensors"]

    def late(request: Any) -> None:
        time.sleep(0.2)
        route(request)

    world.cdn.routes["/a.safetensors"] = late
    assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == DATA


def test_silence_is_given_up_in_time(world: World) -> None:
    world.use(read_timeout=0.2, attempts=2)
    hold = threading.Event()
    url = world.cdn.file("/a.safetensors", DATA, claim=400_000, ranges=False, hold=hold)
    with pytest.raises(OfflineError, match="timed out"):
        world.fetch(url)
    hold.set()


def test_larger_than_the_limit(world: World) -> None:
    world.use(max_bytes=1000)
    with pytest.raises(RefusedError, match="FLUX_HOTSWAP_MAX_SIZE"):
        world.fetch(world.cdn.file("/a.safetensors", DATA))
    assert world.leftovers() == []
