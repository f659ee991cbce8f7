"""Killed processes, two at a time, a full disk and a cancel."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import File, Request, lora, sha256, tar
from fetch.world import World

from flux_hotswap.errors import CancelledError, NoRoomError, OfflineError, RefusedError, StoreError
from flux_hotswap.files.lock import locked, try_lock
from flux_hotswap.files.pump import ask

TOP = Path(__file__).parents[2]


DATA = lora(300_000)


BIG = lora(6 * 2**20)


def start(
    world: World, text: str, *, limit: int = 0, user: int = 0, machine: str = ""
) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(TOP), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return subprocess.Popen(
        [
            *(sys.executable, TOP / "tests/faults/fetcher.py", world.loras, text),
            *(str(limit), str(user), machine or world.settings.machine),
        ],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )


def result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    return json.loads(process.communicate(timeout=30)[0])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def parts(world: World) -> list[Path]:
    return list((world.loras / "flux-hotswap" / ".work").glob("*.part"))


def arrived(world: World, size: int) -> Callable[[], bool]:
    return lambda: any(part.stat().st_size >= size for part in parts(world))


@pytest.mark.parametrize("packed", [False, True], ids=["file", "tar"])
def test_killed_and_resumed(world: World, packed: bool) -> None:
    body = tar(("notes.txt", b"x"), ("o/lora.safetensors", DATA)) if packed else DATA
    name = "/a.tar" if packed else "/a.safetensors"
    url = world.cdn.file(name, body, rate=100_000)
    process = start(world, url)
    until(arrived(world, 50_000))
    process.kill()
    process.communicate()
    assert not list(world.loras.rglob("*.safetensors"))
    have = parts(world)[0].stat().st_size
    world.cdn.file(name, body)
    assert world.fetch(url).path.read_bytes() == DATA
    first = int(world.cdn.seen[-1].headers["range"].removeprefix("bytes=").rstrip("-"))
    assert first >= have
    assert world.cdn.seen[-1].headers["if-range"] == '"one"'
    assert world.leftovers() == []


def test_killed_while_several_connections_write(world: World) -> None:
    url = world.cdn.file("/a.safetensors", BIG, rate=1_500_000)
    process = start(world, url)
    until(lambda: len(world.cdn.seen) > 6)
    process.kill()
    process.communicate()
    world.cdn.file("/a.safetensors", BIG)
    assert world.fetch(url).path.read_bytes() == BIG
    first = int(world.cdn.seen[-1].headers["range"].removeprefix("bytes=").rstrip("-"))
    assert first > 0


def test_what_is_left_of_another_state_is_not_used(world: World) -> None:
    """The bytes do not give the promised hash together, so the file is fetched once more."""
    url = world.cdn.file("/a.safetensors", DATA, cut=[100_000] * 9)
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(f"{url}#sha256={sha256(DATA)}")
    part = parts(world)[0]
    part.write_bytes(b"\0" * 5 + part.read_bytes()[5:])
    world.cdn.file("/a.safetensors", DATA)
    assert world.fetch(f"{url}#sha256={sha256(DATA)}").sha256 == sha256(DATA)
    assert [seen.headers["range"] for seen in world.cdn.seen[1:]] == ["bytes=100000-", "bytes=0-"]


@pytest.mark.parametrize(
    "note",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"odd": 1}',
        b'{"have": "x", "validator": "y"}',
        b'{"have": -5, "validator": "y"}',
        b'{"member": [1], "validator": "y"}',
        b'{"validator": "old"}',
        b'{"sha256": "other"}',
    ],
)
def test_a_note_that_does_not_fit(world: World, note: bytes) -> None:
    url = world.cdn.file("/a.safetensors", DATA, cut=[100_000])
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(url)
    parts(world)[0].with_suffix(".json").write_bytes(note)
    assert world.fetch(url).path.read_bytes() == DATA


def test_whole_but_killed_before_the_end(world: World) -> None:
    """Everything is there; the server answers that there is nothing more."""
    url = world.cdn.file("/a.safetensors", DATA, cut=[len(DATA)], claim=len(DATA) + 1, ranges=False)
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(url)
    world.cdn.file("/a.safetensors", DATA)
    assert world.fetch(url).path.read_bytes() == DATA
    assert len(world.cdn.seen) == 2


def test_a_file_that_became_shorter(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, cut=[200_000])
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(url)
    short = lora(1_000)
    world.cdn.file("/a.safetensors", short)
    world.use(attempts=3)
    assert world.fetch(url).path.read_bytes() == short


def test_two_processes_fetch_once(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, rate=400_000)
    found = [result(process) for process in [start(world, url) for _ in range(2)]]
    assert len({item["path"] for item in found}) == 1
    assert sorted(item["from_cache"] for item in found) == [False, True]
    assert len(world.cdn.seen) == 1


def test_two_machines_whose_locks_do_not_hold(world: World) -> None:
    """Each fetches for itself, and nobody ever sees a part of a file."""
    url = f"{world.cdn.url}/a.safetensors"
    both, rates = threading.Barrier(2), [400_000, 1_200_000]

    def together(request: Request) -> None:
        both.wait(20)
        File(DATA, rate=rates.pop())(request)

    world.cdn.routes["/a.safetensors"] = together
    first = start(world, url, machine="one")
    until(lambda: bool(world.cdn.seen))
    for path in (world.loras / "flux-hotswap" / ".work").glob("*.lock"):
        path.unlink()  # whoever comes next locks another file of that name
    second = start(world, url, machine="two")
    sizes: set[int] = set()
    while None in (first.poll(), second.poll()):
        sizes |= {path.stat().st_size for path in world.loras.rglob("*.safetensors")}
        time.sleep(0.002)
    found = [result(process) for process in (first, second)]
    assert [item["from_cache"] for item in found] == [False, False]
    assert len({item["path"] for item in found}) == 1
    assert sizes == {len(DATA)}
    assert Path(found[0]["path"]).read_bytes() == DATA
    assert len(world.store.entries()) == 1
    assert world.leftovers() == []


def test_two_threads_fetch_once(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, rate=1_000_000)
    found: list[bool] = []
    world.use(sleep=time.sleep)
    threads = [
        threading.Thread(target=lambda: found.append(world.fetch(url).from_cache)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == [False, True, True]
    assert len(world.cdn.seen) == 1


def test_waiting_for_another_can_be_cancelled(world: World) -> None:
    path = world.loras / "x.lock"
    world.loras.mkdir()
    with (
        locked(path, sleep=time.sleep, cancelled=lambda: False),
        pytest.raises(CancelledError),
        locked(path, sleep=time.sleep, cancelled=lambda: True),
    ):
        raise AssertionError("held twice")


def test_a_disk_without_locks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    world.loras.mkdir()
    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(StoreError, match="cannot be locked: No locks"),
        try_lock(world.loras / "x.lock"),
    ):
        raise AssertionError("held")
    (world.loras / "no").write_text("a file")
    with pytest.raises(StoreError, match="cannot be locked"), try_lock(world.loras / "no" / "x"):
        raise AssertionError("held")


def test_a_file_size_limit_is_a_full_disk(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    found = result(start(world, url, limit=100_000))
    assert found["error"] == "NoRoomError"
    assert not list(world.loras.rglob("*.safetensors"))
    assert parts(world) == []
    assert result(start(world, url))["from_cache"] is False


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("packed", [False, True], ids=["file", "tar"])
def test_a_disk_that_fills_up(world: World, small_disk: Path, packed: bool) -> None:
    world.loras = small_disk
    world.use(free_space=lambda _: 2**40)
    body = tar(("lora.safetensors", DATA)) if packed else DATA
    with pytest.raises(NoRoomError, match="is full"):
        world.fetch(world.cdn.file("/a.tar" if packed else "/a.safetensors", body))
    assert parts(world) == []


@pytest.mark.parametrize("packed", [False, True], ids=["file", "tar"])
def test_a_disk_with_too_little_room(world: World, packed: bool) -> None:
    world.use(free_space=lambda _: 250_000)
    body = tar(("lora.safetensors", DATA)) if packed else DATA
    with pytest.raises(NoRoomError) as caught:
        world.fetch(world.cdn.file("/a.tar" if packed else "/a.safetensors", body))
    assert (caught.value.needed, caught.value.free) == (len(body), 250_000)
    assert parts(world) == []


def test_a_folder_that_cannot_be_written(world: World) -> None:
    world.loras.write_text("a file, not a folder")
    with pytest.raises(StoreError, match="cannot be used"):
        world.fetch(world.cdn.file("/a.safetensors", DATA))


def test_cancel_in_the_middle_then_resume(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, rate=300_000)
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        assert total == len(DATA)
        seen.append(done)

    with pytest.raises(CancelledError, match="kept"):
        world.fetch(url, progress=progress, cancelled=lambda: bool(seen and seen[-1] > 20_000))
    world.cdn.file("/a.safetensors", DATA)
    assert world.fetch(url, progress=progress).path.read_bytes() == DATA
    assert seen[-1] == len(DATA)
    assert world.cdn.seen[-1].headers["range"] != "bytes=0-"


@pytest.mark.parametrize("where", ["resolve", "stall"])
def test_cancel_is_heard_while_the_server_keeps_silent(world: World, where: str) -> None:
    hold = threading.Event()

    def silent(request: Request) -> None:
        hold.wait(10)

    world.civitai.fallback = silent
    world.cdn.file("/a.safetensors", DATA, claim=400_000, ranges=False, hold=hold)
    text = "civitai:5" if where == "resolve" else world.cdn.url + "/a.safetensors"
    begun = time.monotonic()
    with pytest.raises(CancelledError):
        world.fetch(text, cancelled=lambda: time.monotonic() - begun > 0.3)
    assert time.monotonic() - begun < 2
    hold.set()


def test_cancel_is_heard_while_waiting_to_try_again(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA, statuses=[(429, {"retry_after": "50"})])
    with pytest.raises(CancelledError):
        world.fetch(url, cancelled=lambda: len(world.clock.slept) > 3)
    assert sum(world.clock.slept) < 2


def test_a_part_of_a_tar_is_gone_on_with(world: World) -> None:
    data = tar(("notes.txt", b"x"), ("o/lora.safetensors", DATA))
    url = world.cdn.file("/a.tar", data, cut=[100_000])
    world.use(attempts=1)
    with pytest.raises(OfflineError):
        world.fetch(url)
    assert world.fetch(url).path.read_bytes() == DATA
    assert world.cdn.seen[-1].headers["range"] == "bytes=100000-"


def test_killed_while_a_tar_is_taken_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is neither the tar nor the file, and is not taken for either."""
    data = tar(("notes.txt", b"x" * 5000), ("o/lora.safetensors", DATA))
    url = world.cdn.file("/a.tar", data)

    class KilledError(BaseException):
        pass

    def killed(path: Path, **_: Any) -> Any:
        with path.open("r+b") as file:
            file.write(DATA[:1000])
        raise KilledError

    monkeypatch.setattr("flux_hotswap.lora_fetch.fetch.unpack", killed)
    with pytest.raises(KilledError):
        world.fetch(url)
    monkeypatch.undo()
    world.cdn.file("/a.tar", data)
    assert world.fetch(url).path.read_bytes() == DATA
    assert world.cdn.seen[-1].headers["range"] == "bytes=0-"
    assert world.leftovers() == []


def test_a_mistake_of_ours_in_a_thread_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("threading.excepthook", told.append)
    with pytest.raises(AssertionError, match="without an answer"):
        ask(lambda: 1 // 0, seconds=9, cancelled=lambda: False)
    until(lambda: bool(told))


def test_a_limit_holds_for_a_body_without_a_length(world: World) -> None:
    world.use(max_bytes=10_000)

    def endless(request: Request) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        for _ in range(100):
            request.wfile.write(DATA)

    world.cdn.routes["/a.safetensors"] = endless
    with pytest.raises(RefusedError, match="larger than the limit"):
        world.fetch(world.cdn.url + "/a.safetensors")


def test_a_disk_that_fails_while_the_file_arrives(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flush in the background says is not lost: the disk says it only once."""
    told: list[int] = []
    flush = os.fsync

    def failing(file: int) -> None:
        told.append(file)
        if len(told) == 1:
            raise OSError(errno.EIO, "Input/output error")
        flush(file)

    monkeypatch.setattr("flux_hotswap.files.part.FLUSH", 2**20)
    monkeypatch.setattr("os.fsync", failing)
    url = world.cdn.file("/a.safetensors", BIG)
    with pytest.raises(StoreError, match="cannot be used: Input/output error"):
        world.fetch(url)
    assert not list(world.loras.rglob("*.safetensors"))
    assert world.fetch(url).path.read_bytes() == BIG
    assert len(told) > 2
