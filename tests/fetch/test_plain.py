"""Files that are no LoRA: a picture by link, a pinned weight file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from fetch.servers import lora, sha256
from fetch.world import HUB_TOKEN, World
from flux_hotswap.errors import (
    BadFileError,
    CancelledError,
    NoRoomError,
    NotFoundError,
    RefusedError,
)
from flux_hotswap.files.plain import fetch_file, read_link

DATA = lora(300_000)


def never() -> bool:
    return False


def read(world: World, url: str, **more: Any) -> bytes:
    options = {"max_bytes": 1 << 20, "seconds": 60.0, "cancelled": never} | more
    return read_link(url, settings=world.settings, **options)


def get(world: World, url: str, target: Path, **more: Any) -> list[int]:
    told: list[int] = []
    options = {"size": len(DATA), "sha256": sha256(DATA), "cancelled": never} | more
    options.setdefault("progress", lambda done, _total: told.append(done))
    fetch_file(url, target, settings=world.settings, **options)
    return told


# --- pictures -----------------------------------------------------------------------------------


def test_a_link_is_read_whole(world: World) -> None:
    url = world.cdn.file("/a.png", b"x" * 700_000)
    assert read(world, url) == b"x" * 700_000


def test_a_missing_link(world: World) -> None:
    with pytest.raises(NotFoundError, match="404"):
        read(world, f"{world.cdn.url}/nothing.png")


def test_too_much_is_refused(world: World) -> None:
    url = world.cdn.file("/big.png", b"x" * 5000)
    with pytest.raises(RefusedError, match="larger than 4999 bytes"):
        read(world, url, max_bytes=4999)
    assert len(read(world, url, max_bytes=5000)) == 5000


def test_cancelling_stops(world: World) -> None:
    url = world.cdn.file("/a.png", b"x" * 5000)
    with pytest.raises(CancelledError):
        read(world, url, cancelled=lambda: True)


def test_a_body_that_is_packed_unasked_is_refused(world: World) -> None:
    url = world.cdn.file("/a.png", gzip.compress(bytes(9000)), headers={"Content-Encoding": "gzip"})
    with pytest.raises(RefusedError, match="sends the file compressed"):
        read(world, url)


def test_no_token_goes_to_another_host(world: World) -> None:
    read(world, world.cdn.file("/a.png", b"x"))
    assert all("authorization" not in seen.headers for seen in world.cdn.seen)


# --- pinned files -------------------------------------------------------------------------------


def test_a_pinned_file_arrives_whole(world: World, tmp_path: Path) -> None:
    target = tmp_path / "weights.safetensors"
    told = get(world, world.cdn.file("/w.safetensors", DATA), target)
    assert target.read_bytes() == DATA
    assert told[-1] == len(DATA)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".weights.safetensors.lock",
        "weights.safetensors",
    ]


def test_the_hubs_token_goes_to_the_hub(world: World, tmp_path: Path) -> None:
    get(world, world.hub.file("/w.safetensors", DATA), tmp_path / "w.safetensors")
    assert world.hub.seen[0].headers["authorization"] == f"Bearer {HUB_TOKEN}"


def test_what_another_process_fetched_is_taken(world: World, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"there")
    get(world, world.cdn.file("/w.safetensors", DATA), target)
    assert target.read_bytes() == b"there"
    assert not world.cdn.seen


@pytest.mark.parametrize(
    "pinned", [{"sha256": "0" * 64}, {"size": len(DATA) + 1}], ids=["hash", "size"]
)
def test_other_content_is_refused(world: World, tmp_path: Path, pinned: dict[str, Any]) -> None:
    target = tmp_path / "w.safetensors"
    with pytest.raises(BadFileError):
        get(world, world.cdn.file("/w.safetensors", DATA), target, **pinned)
    assert not target.exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_cancelled_download_goes_on_later(world: World, tmp_path: Path) -> None:
    target = tmp_path / "w.safetensors"
    url = world.cdn.file("/w.safetensors", DATA)
    seen: list[int] = []

    def after_a_while() -> bool:
        return bool(seen)

    with pytest.raises(CancelledError):
        get(
            world,
            url,
            target,
            progress=lambda done, _total: seen.append(done),
            cancelled=after_a_while,
        )
    assert not target.exists()
    get(world, url, target)
    assert target.read_bytes() == DATA


def test_a_full_disk_is_said_before_anything_is_written(world: World, tmp_path: Path) -> None:
    world.use(free_space=lambda _folder: len(DATA) - 1)
    with pytest.raises(NoRoomError, match=f"{len(DATA)} bytes are needed"):
        get(world, world.cdn.file("/w.safetensors", DATA), tmp_path / "w.safetensors")


def test_the_limit_for_loras_does_not_hold_for_a_pinned_file(world: World, tmp_path: Path) -> None:
    world.use(max_bytes=10)
    get(world, world.cdn.file("/w.safetensors", DATA), tmp_path / "w.safetensors")
