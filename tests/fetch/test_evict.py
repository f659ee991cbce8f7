"""What the store removes, and what stays because somebody was given it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from fetch.servers import File, Request, lora, sha256
from fetch.services import COMMIT, DATA, OTHER, repository
from fetch.world import World, files
from flux_hotswap.errors import OfflineError
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.store import Store

DAY = 24 * 3600.0


def once(call: Callable[[], object]) -> Callable[[], None]:
    """Do it at the first call alone."""
    left = [call]

    def first() -> None:
        if left:
            left.pop()()

    return first


def other_clock(world: World, call: Callable[[], object]) -> Callable[[], float]:
    """A clock that does something when it is first looked at, as another process would."""
    first = once(call)

    def clock() -> float:
        first()
        return world.clock.now

    return clock


def evicting(world: World) -> Callable[[], None]:
    """Another process that needs all the room."""
    store = Store(world.loras, replace(world.settings, cache_bytes=1, keep_recent=60))
    return lambda: store.make_room(1)


# --- a file that is evicted between the look into the index and the answer ---


def test_a_file_evicted_while_its_link_is_looked_up(world: World) -> None:
    url, evict = world.cdn.url + "/a.safetensors", once(evicting(world))
    served = File(DATA)

    def route(request: Request) -> None:
        if request.headers["Range"] == "bytes=0-0":
            evict()
        served(request)

    world.cdn.routes["/a.safetensors"] = route
    world.fetch(url)
    world.clock.now += DAY + 1
    found = world.fetch(url)
    assert (found.path.read_bytes(), found.from_cache) == (DATA, False)


def test_a_file_evicted_while_its_source_is_down(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    world.clock.now += DAY + 1
    evict = once(evicting(world))

    def down(request: Request) -> None:
        evict()
        request.reply(503)

    world.hub.routes.clear()
    world.hub.fallback = down
    with pytest.raises(OfflineError, match="503"):
        world.fetch("hf:a/b")


@pytest.mark.parametrize("text", ["hf:a/b", f"hf:a/b@{COMMIT}/x.safetensors"])
def test_a_file_evicted_while_it_is_handed_out(world: World, text: str) -> None:
    repository(world, "x.safetensors")
    world.fetch(text)
    world.clock.now += 3600
    world.use(clock=other_clock(world, evicting(world)))
    found = world.fetch(text)
    assert (found.path.read_bytes(), found.from_cache) == (DATA, False)


# --- a file that somebody takes between the choice and its end ---


@pytest.mark.parametrize("pinned", [False, True], ids=["used", "pinned"])
def test_a_file_taken_while_it_is_evicted(world: World, pinned: bool) -> None:
    urls = [world.cdn.file(f"/{n}.safetensors", lora(3_000, seed=n)) for n in range(2)]
    first, second = (world.fetch(url) for url in urls)
    world.clock.now += 3600

    def take() -> None:
        if pinned:
            world.store.update(parse(urls[0]), pinned=True)
        else:
            assert world.fetch(urls[0]).from_cache

    crowded = replace(world.settings, cache_bytes=1, clock=other_clock(world, take))
    Store(world.loras, crowded).make_room(1)
    assert first.path.exists()
    assert not second.path.exists(), "the next one goes in its place"


# --- a version that a newer one replaces ---


def test_a_version_that_somebody_was_just_given_stays(world: World) -> None:
    """It goes later, with the least recently used."""
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    world.store.update(parse(url), pinned=True)
    world.clock.now += DAY - 1
    given = world.fetch(url)
    world.cdn.file("/a.safetensors", OTHER, etags=['"two"'])
    world.clock.now += 2
    newer = world.fetch(url)
    assert newer.sha256 == sha256(OTHER)
    assert files(world) == {given.path.name, newer.path.name}
    assert world.fetch(url).path == newer.path
    world.clock.now += 3600
    world.use(cache_bytes=1)
    world.fetch(world.cdn.file("/b.safetensors", lora(50)))
    assert not given.path.exists()
    assert newer.path.exists(), "it is pinned, as the one before it was"


def test_a_version_that_comes_back(world: World) -> None:
    repository(world, "x.safetensors")
    world.use(recheck_after=1)
    first = world.fetch("hf:a/b")
    repository(world, "x.safetensors", data=OTHER, commit="d" * 40)
    world.clock.now += 2
    second = world.fetch("hf:a/b")
    repository(world, "x.safetensors")
    world.clock.now += 2
    third = world.fetch("hf:a/b")
    assert (third.path, third.from_cache) == (first.path, True)
    assert files(world) == {first.path.name, second.path.name}


# --- names that meet ---


def meeting() -> tuple[bytes, bytes]:
    """Two sound files whose hashes start alike; who makes a file can look for such."""
    seen: dict[str, bytes] = {}
    base = lora(64)[:-8]
    for number in range(2**20):
        data = base + struct.pack("<Q", number)
        start = sha256(data)[:8]
        if start in seen:
            return seen[start], data
        seen[start] = data
    raise AssertionError("none of so many")


def test_a_file_whose_name_another_one_has(world: World) -> None:
    one, two = meeting()
    world.cdn.file("/x.safetensors", one)
    world.hub.file("/X.safetensors", two)
    first = world.fetch(f"{world.cdn.url}/x.safetensors#sha256={sha256(one)}")
    second = world.fetch(f"{world.hub.url}/X.safetensors")
    assert first.path.read_bytes() == one
    assert second.path.read_bytes() == two
    assert first.path.name.lower() != second.path.name.lower(), "Windows does not tell them apart"
    states = [world.store.check(e, thorough=True) for e in world.store.entries().values()]
    assert states == ["ok", "ok"]
    again = fetch(f"{world.hub.url}/X.safetensors", store=world.store, settings=world.settings)
    assert again.from_cache
