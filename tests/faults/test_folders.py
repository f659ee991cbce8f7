"""Folders that can only be read, belong to somebody else or are full; clocks that jump."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import lora, sha256
from fetch.services import repository
from fetch.world import World, entry_of, files, index

from flux_hotswap.errors import NoRoomError, OfflineError, StoreError
from flux_hotswap.files.lock import locked
from flux_hotswap.lora_fetch.fetch import Fetched

from .test_processes import parts, result, start

DATA = lora(3_000)
HOUR, DAY, YEAR = 3600.0, 24 * 3600.0, 365 * 24 * 3600.0


@pytest.fixture
def disk(world: World, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """The loras folder as a disk of its own; the function mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")

    def again(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    world.loras = folder / "loras"
    world.loras.mkdir()
    yield again
    subprocess.run(["umount", folder], check=True)


# --- folders that can only be read ---


def a_hit(world: World) -> Fetched:
    return world.fetch(world.cdn.url + "/a.safetensors")


def a_file_of_the_user(world: World) -> Fetched:
    return world.fetch("mine.safetensors")


def a_restored_copy(world: World) -> Fetched:
    """All there, with other times."""
    return a_hit(world)


@pytest.mark.parametrize("use", [a_hit, a_file_of_the_user, a_restored_copy])
def test_what_is_there_works_on_a_disk_that_is_only_read(
    world: World, disk: Callable[[str], None], use: Callable[[World], Fetched], caplog: Any
) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    (world.loras / "mine.safetensors").write_bytes(DATA)
    if use is a_restored_copy:
        os.utime(world.store.path(entry_of(world)), ns=(1, 1))
    before = index(world).read_bytes()
    disk("ro")
    world.clock.now += HOUR  # the time of use would be written
    found = use(world)
    assert (found.path.read_bytes(), found.sha256) == (DATA, sha256(DATA))
    assert found.from_cache
    assert index(world).read_bytes() == before
    assert "Read-only file system" in caplog.text
    assert len(world.cdn.seen) == 1


def test_a_newer_version_cannot_be_kept_on_a_disk_that_is_only_read(
    world: World, disk: Callable[[str], None]
) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    world.cdn.file("/a.safetensors", lora(50), etags=['"two"'])
    disk("ro")
    world.clock.now += 2 * DAY
    found = world.fetch(url)
    assert (found.path.read_bytes(), found.from_cache) == (DATA, True)
    assert "using the one from before" in found.warnings[0]
    disk("rw")
    assert world.fetch(url).path.read_bytes() == lora(50)


def test_a_new_lora_on_a_disk_that_is_only_read(world: World, disk: Callable[[str], None]) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    disk("ro")
    with pytest.raises(StoreError, match="Read-only file system"):
        world.fetch(world.cdn.file("/b.safetensors", lora(50)))


def test_a_damaged_index_on_a_disk_that_is_only_read(
    world: World, disk: Callable[[str], None]
) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    index(world).write_text("{")
    disk("ro")
    with pytest.raises(StoreError, match="Read-only file system"):
        a_hit(world)
    assert world.store.entries() == {}
    disk("rw")
    assert a_hit(world).path.read_bytes() == DATA


def test_what_is_there_works_on_a_full_disk(world: World, disk: Callable[[str], None]) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    with (world.loras / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
        while True:
            ballast.write(bytes(4096))
    world.clock.now += HOUR
    assert a_hit(world).path.read_bytes() == DATA
    world.use(free_space=lambda _: 2**40)
    with pytest.raises(NoRoomError, match="is full"):
        world.fetch(world.cdn.file("/b.safetensors", lora(50_000)))
    (world.loras / "ballast").unlink()
    assert world.fetch(world.cdn.url + "/b.safetensors").path.read_bytes() == lora(50_000)


# --- folders of somebody else ---


@contextmanager
def nobodys(world: World, *, mode: int) -> Iterator[None]:
    """Let another user's process meet the folder with these rights."""
    if os.geteuid():
        pytest.skip("needs root to start a process of another user")
    above = [path for path in world.loras.parents if path.stat().st_uid == os.geteuid()]
    kept = {path: path.stat().st_mode for path in above}
    for path in above[:-1]:
        path.chmod(kept[path] | 0o011)
    for path in [world.loras, *world.loras.rglob("*")]:
        path.chmod(mode if path.is_dir() else mode & ~0o111)
    try:
        yield
    finally:
        for path, before in kept.items():
            path.chmod(before)


@pytest.mark.parametrize(
    ("mode", "what", "outcome"),
    [
        (0o755, "/a.safetensors", "from_cache"),
        (0o755, "/b.safetensors", "StoreError"),
        (0o700, "/a.safetensors", "StoreError"),
    ],
    ids=["a hit", "a new one", "not even to look"],
)
def test_without_the_right_to_write(world: World, mode: int, what: str, outcome: str) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    world.cdn.file("/b.safetensors", lora(50))
    with nobodys(world, mode=mode):
        found = result(start(world, world.cdn.url + what, user=65534))
    assert found.get("error", "from_cache") == outcome, found
    if outcome == "StoreError":
        assert "Permission denied" in found["text"]
        assert "permissions" in found["text"]
    else:
        assert found["from_cache"] is True
    assert files(world) == {entry_of(world).file}


# --- clocks ---


@pytest.mark.parametrize("jump", [-3 * YEAR, -DAY, -HOUR, HOUR, 3 * YEAR], ids=str)
def test_what_is_there_works_after_a_jump_of_the_clock(world: World, jump: float) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    world.clock.now += jump
    assert world.fetch(url).from_cache
    assert entry_of(world).used == world.clock.now


@pytest.mark.parametrize(
    ("jump", "asked"),
    [(-3 * YEAR, True), (-2 * DAY, True), (-HOUR, True), (DAY / 2, False), (3 * YEAR, True)],
    ids=["years back", "days back", "an hour back", "within the day", "years on"],
)
def test_a_moving_name_after_a_jump_of_the_clock(world: World, jump: float, asked: bool) -> None:
    """A name that was looked up while the clock was ahead does not stay as it is for years."""
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    before = len(world.hub.seen)
    world.clock.now += jump
    world.fetch("hf:a/b")
    assert (len(world.hub.seen) > before) is asked
    before = len(world.hub.seen)
    world.fetch("hf:a/b")
    assert len(world.hub.seen) == before


def test_files_from_the_future_can_be_evicted(world: World) -> None:
    old = world.fetch(world.cdn.file("/a.safetensors", DATA))
    world.clock.now -= YEAR
    world.use(cache_bytes=len(DATA) + 100)
    new = world.fetch(world.cdn.file("/b.safetensors", lora(3_100)))
    assert files(world) == {new.path.name}
    assert not old.path.exists()


@pytest.mark.parametrize("age", [-YEAR, -DAY - HOUR, -HOUR, HOUR, DAY + HOUR, YEAR], ids=str)
def test_what_a_broken_fetch_left_goes_by_its_age(world: World, age: float) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    part = world.loras / "flux-hotswap" / ".work" / f"{'0' * 32}.part"
    part.write_bytes(b"half")
    made = world.clock.now - age
    os.utime(part, (made, made))
    world.store.prune(keep_bytes=2**40)
    assert part.exists() is (abs(age) < DAY)


@pytest.mark.parametrize("has_room", [False, True], ids=["short of room", "room enough"])
def test_what_broken_fetches_left_makes_room(world: World, has_room: bool) -> None:
    """Before a LoRA is evicted for it, and only where the disk is short."""
    kept = world.fetch(world.cdn.file("/a.safetensors", DATA))
    world.use(attempts=1)
    for number in range(3):
        url = world.cdn.file(f"/{number}.safetensors", lora(400_000), cut=[200_000])
        with pytest.raises(OfflineError):
            world.fetch(url)
    for part in parts(world):
        os.utime(part, (world.clock.now, world.clock.now))
    world.clock.now += 2 * DAY
    disk = 10**9 if has_room else 700_000

    def free(_: Path) -> int:
        return disk - sum(path.stat().st_size for path in world.loras.rglob("*") if path.is_file())

    world.use(free_space=free)
    found = world.fetch(world.cdn.file("/new.safetensors", lora(350_000)))
    assert found.path.read_bytes() == lora(350_000)
    assert len(parts(world)) == (3 if has_room else 0)
    assert kept.path.exists()


def test_what_another_process_is_writing_stays(world: World) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    part = world.loras / "flux-hotswap" / ".work" / f"{'0' * 32}.part"
    part.write_bytes(b"half")
    os.utime(part, (1, 1))
    with locked(part.with_suffix(".lock"), sleep=world.clock.sleep, cancelled=lambda: False):
        assert world.store.prune(keep_bytes=2**40) == []
    assert parts(world) == [part]


@pytest.mark.parametrize("when", [1, 2**31, 2**33], ids=str)
def test_a_time_that_changed_does_not_make_a_file_another(world: World, when: int) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    found = world.fetch(url)
    os.utime(found.path, (when, when))
    assert world.fetch(url).from_cache
    damaged = bytearray(DATA)
    damaged[-1] ^= 1
    found.path.write_bytes(damaged)
    os.utime(found.path, (when + 1, when + 1))
    assert not world.fetch(url).from_cache
    assert found.path.read_bytes() == DATA


# --- an index that somebody edited ---


def edited(text: str, draw: random.Random) -> bytes:
    """An index as an editor, a crash or a bad disk may leave it."""
    data = bytearray(text, "utf-8")
    at, size = draw.randrange(len(data)), draw.randrange(1, 40)
    way = draw.randrange(5)
    if way == 0:
        del data[at:]
    elif way == 1:
        del data[at : at + size]
    elif way == 2:
        data[at : at + size] = draw.randbytes(size)
    elif way == 3:
        data[at : at + size] = bytes(size)
    else:
        word = draw.choice((b"null", b"-1", b"1e999", b'"x"', b"[]", b"{}", b"true", b"NaN"))
        data[at : at + size] = word
    return bytes(data)


def test_any_damage_to_the_index_costs_a_fetch_at_most(world: World) -> None:
    urls = [world.cdn.file(f"/{n}.safetensors", lora(100 + n)) for n in range(3)]
    for url in urls:
        world.fetch(url)
    whole = index(world).read_text()
    draw = random.Random(9)
    for _ in range(150):
        damaged = edited(whole, draw)
        index(world).write_bytes(damaged)
        for number, url in enumerate(urls):
            assert world.fetch(url).path.read_bytes() == lora(100 + number), damaged
        for entry in json.loads(index(world).read_text())["loras"].values():
            assert (world.loras / "flux-hotswap" / entry["file"]).is_file(), damaged
