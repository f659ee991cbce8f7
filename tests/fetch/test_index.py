"""An index that is damaged, locked or not to be trusted."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from fetch.servers import lora
from fetch.services import DATA
from fetch.world import World, entry_of, files, index
from flux_hotswap.errors import StoreError
from flux_hotswap.lora_fetch.parser import parse


def test_update_of_what_is_not_there(world: World) -> None:
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    world.store.update(parse("a/b"), pinned=True)
    assert len(world.store.entries()) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"loras": 5}', "\x00"])
def test_damaged_index_costs_a_fetch_and_no_more(world: World, text: str, caplog: Any) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    index(world).write_text(text)
    assert not world.fetch(url).from_cache
    assert world.fetch(url).from_cache
    assert files(world) == {entry_of(world).file}
    assert ("damaged" in caplog.text) is (text in ("{", "\x00"))


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../evil.safetensors"},
        {"file": "evil.txt"},
        {"file": 5},
        {"size": "1"},
        {"used": None},
        {"revision": 5},
        {"trigger_words": "x"},
        {"sha256": ...},
        {"file": "a\0.safetensors"},
        {"file": "a" * 4000 + ".safetensors"},
        {"file": "\ud800.safetensors"},
        {"file": "a\x1b[2J.safetensors"},
        {"file": "C:a.safetensors"},
        {"size": -1},
        {"size": 10**400},
        {"size": True},
        {"mtime_ns": 1e3},
        {"used": float("inf")},
        {"used": float("nan")},
        {"pinned": 1},
        {"trigger_words": None},
        {"ok": 1, "trigger_words": [5, None, ["a"]]},
        {"from_a_later_release": 1, "ok": True},
    ],
    ids=lambda change: ascii(change)[:60],
)
def test_entries_of_an_index_are_not_trusted(world: World, change: dict[str, Any]) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    document = json.loads(index(world).read_text())
    (entry,) = document["loras"].values()
    entry.update(change)
    if entry["sha256"] is ...:
        del entry["sha256"]
    index(world).write_text(json.dumps(document))
    assert world.fetch(url).from_cache is ("ok" in change)


@pytest.mark.parametrize("holds", [[], ["a"]], ids=["empty", "with a file"])
def test_a_folder_in_the_place_of_the_index(world: World, holds: list[str]) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    index(world).unlink()
    index(world).mkdir()
    for name in holds:
        (index(world) / name).write_text("kept")
    assert not world.fetch(url).from_cache
    assert world.fetch(url).from_cache
    assert files(world) == {entry_of(world).file}
    (aside,) = index(world).parent.glob("index.broken-*")
    assert [path.name for path in aside.iterdir()] == holds


def test_what_an_index_says_is_shown_in_one_line(world: World, caplog: Any) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    document = json.loads(index(world).read_text())
    ((key, entry),) = document["loras"].items()
    long = "\x1b[2Ja\n" * 10**6
    document["loras"] |= {key: {**entry, **dict.fromkeys(("source", "url", "name"), long)}}
    document["loras"][key]["trigger_words"] = [long, *[long[:600]] * 1000]
    document["loras"][long] = 5
    index(world).write_text(json.dumps(document))
    found = world.fetch(url)
    assert found.from_cache
    texts = (found.source, found.name, *found.trigger_words)
    assert all(text.isprintable() for text in texts)
    assert sum(map(len, texts)) < 50_000
    assert len(caplog.text) < 2000
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("error", [errno.ESTALE, errno.ENOENT])
def test_index_that_another_machine_replaced(world: World, monkeypatch: Any, error: int) -> None:
    """On a network drive it can be gone for a moment; taken for missing, it would be lost."""
    world.fetch(world.cdn.file("/a.safetensors", lora(1000)))
    read, left = Path.read_text, [1, 2]

    def moved(path: Path, *words: Any, **more: Any) -> str:
        if path.name == "index.json" and left:
            left.pop()
            raise OSError(error, "moved")
        return read(path, *words, **more)

    monkeypatch.setattr(Path, "read_text", moved)
    world.fetch(world.cdn.file("/b.safetensors", lora(2000)))
    assert not left
    assert len(world.store.entries()) == 2


def test_index_that_somebody_reads_on_windows(world: World, monkeypatch: Any) -> None:
    real, tries = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        if target.name == "index.json" and len(tries) < 3:
            tries.append(1)
            raise PermissionError(13, "in use")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    world.fetch(world.cdn.file("/a.safetensors", DATA))
    assert len(tries) == 3
    assert len(world.store.entries()) == 1


def test_index_that_cannot_be_replaced(world: World, monkeypatch: Any) -> None:
    def replace(path: Path, target: Path) -> Path:
        raise PermissionError(13, "in use")

    world.fetch(world.cdn.file("/a.safetensors", DATA))
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr("flux_hotswap.lora_fetch.index.time.sleep", lambda _: None)
    with pytest.raises(StoreError, match="in use"):
        world.store.update(parse("a/b"), pinned=True)
