"""What the store keeps, finds again, re-checks, evicts and mends."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fetch.servers import lora, raw, sha256, tar
from fetch.services import COMMIT, DATA, OTHER, civitai, redirect, repository, trained
from fetch.world import World, entry_of, files, index
from flux_hotswap.errors import (
    BadFileError,
    CancelledError,
    FetchError,
    NoRoomError,
    NotFoundError,
    OfflineError,
    RefusedError,
)
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.services.local import LocalFile
from flux_hotswap.lora_fetch.store import file_name

DAY = 24 * 3600.0


def asked(world: World) -> int:
    return sum(len(s.seen) for s in (world.hub, world.civitai, world.replicate, world.cdn))


def test_a_hit_asks_nobody_and_is_fast(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    document = json.loads(index(world).read_text())
    (entry,) = document["loras"].values()
    document["loras"] |= {f"{number:032}": entry for number in range(300)}
    index(world).write_text(json.dumps(document))
    before, store = asked(world), world.store
    fetch("hf:a/b", store=store, settings=world.settings)
    taken: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        found = fetch("https://hf.co/a/b", store=store, settings=world.settings)
        taken.append(time.perf_counter() - begun)
        assert found.from_cache
        assert found.path.read_bytes() == DATA
    assert sorted(taken)[10] < 0.005
    assert asked(world) == before


def test_the_index_says_where_it_came_from(world: World) -> None:
    civitai(world)
    found = world.fetch("civitai:12345")
    (entry,) = json.loads(index(world).read_text())["loras"].values()
    assert entry["source"] == "civitai:12345"
    assert entry["url"] == f"{world.civitai.url}/api/download/models/678"
    assert entry["revision"] == "678/9"
    assert (entry["size"], entry["sha256"]) == (len(DATA), sha256(DATA))
    assert entry["trigger_words"] == ["TOK", "in the style of TOK"]
    assert entry["fetched"] == world.clock.now
    assert found.path.name == entry["file"]


def test_trigger_phrase_of_the_file_itself(world: World) -> None:
    data = lora(100, metadata={"modelspec.trigger_phrase": " TOK "})
    assert world.fetch(world.cdn.file("/a.safetensors", data)).trigger_words == ("TOK",)


def test_moving_name_is_looked_up_again_after_a_time(world: World) -> None:
    repository(world, "x.safetensors")
    first = world.fetch("hf:a/b")
    repository(world, "x.safetensors", data=OTHER, commit="d" * 40)
    assert world.fetch("hf:a/b").sha256 == sha256(DATA)
    world.clock.now += DAY + 1
    found = world.fetch("hf:a/b")
    assert (found.sha256, found.revision, found.from_cache) == (sha256(OTHER), "d" * 40, False)
    assert not first.path.exists()
    assert files(world) == {found.path.name}


def test_new_commit_with_the_same_file_fetches_nothing(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    repository(world, "x.safetensors", commit="d" * 40)
    world.clock.now += DAY + 1
    fetched = len(world.cdn.seen)
    found = world.fetch("hf:a/b")
    assert (found.revision, found.from_cache) == ("d" * 40, True)
    assert len(world.cdn.seen) == fetched
    before = asked(world)
    world.fetch("hf:a/b")
    assert asked(world) == before


@pytest.mark.parametrize("status", [503, 404, 401], ids=["down", "deleted", "private"])
def test_moving_name_is_kept_when_the_source_is_down(world: World, status: int) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    world.hub.routes.clear()
    world.hub.fallback = lambda request: request.reply(status)
    world.clock.now += DAY + 1
    found = world.fetch("hf:a/b")
    assert found.path.read_bytes() == DATA
    assert "using the one from before" in found.warnings[0]
    before = asked(world)
    assert world.fetch("hf:a/b").warnings == ()
    assert asked(world) == before
    world.clock.now += world.settings.retry_check_after + 1
    world.fetch("hf:a/b")
    assert asked(world) > before


def test_moving_name_is_kept_when_the_new_file_is_broken(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    repository(world, "x.safetensors", data=b"not a lora" * 100)
    world.clock.now += DAY + 1
    found = world.fetch("hf:a/b")
    assert found.sha256 == sha256(DATA)
    assert "cannot be used" in found.warnings[0]


def test_cancel_during_a_look_up_is_a_cancel(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    world.clock.now += DAY + 1
    with pytest.raises(CancelledError):
        world.fetch("hf:a/b", cancelled=lambda: True)


@pytest.mark.parametrize("text", [f"hf:a/b@{COMMIT}/x.safetensors", "civitai:12345@678"])
def test_pinned_name_is_never_looked_up_again(world: World, text: str) -> None:
    repository(world, "x.safetensors")
    civitai(world)
    world.fetch(text)
    before = asked(world)
    world.clock.now += 1000 * DAY
    assert world.fetch(text).from_cache
    assert asked(world) == before


def test_replicate_model_that_was_trained_again(world: World) -> None:
    world.replicate.routes["/a/b/_weights"] = redirect(trained(world))
    world.fetch("a/b")
    world.clock.now += DAY + 1
    assert world.fetch("a/b").from_cache
    target = trained(world, OTHER, "/y/trained_model.tar")
    world.replicate.routes["/a/b/_weights"] = redirect(target)
    world.clock.now += DAY + 1
    assert world.fetch("a/b").sha256 == sha256(OTHER)


@pytest.mark.parametrize(
    ("etag", "again", "data"),
    [('"one"', '"one"', DATA), ('"one"', '"two"', OTHER), ("", "", DATA)],
    ids=["same", "changed", "no-word-for-it"],
)
def test_link_that_may_have_changed(world: World, etag: str, again: str, data: bytes) -> None:
    url = world.cdn.file("/a.safetensors", DATA, etags=[etag])
    world.fetch(url)
    world.cdn.file("/a.safetensors", OTHER, etags=[again])
    world.clock.now += DAY + 1
    found = world.fetch(url)
    assert found.sha256 == sha256(data)
    probe = world.cdn.seen[1].headers["range"]
    assert probe == "bytes=0-0"


def test_two_sources_of_the_same_bytes_share_a_file(world: World) -> None:
    first = world.fetch(world.cdn.file("/a.safetensors", DATA))
    second = world.fetch(world.cdn.file("/b.safetensors", DATA))
    assert first.path == second.path
    assert len(world.store.entries()) == 2
    assert world.store.size() == len(DATA)
    world.cdn.file("/b.safetensors", OTHER, etags=['"two"'])
    world.clock.now += DAY + 1
    assert world.fetch(world.cdn.url + "/b.safetensors").path != first.path
    assert first.path.exists()


def test_bytes_that_are_here_from_another_source_are_not_fetched(world: World) -> None:
    repository(world, "x.safetensors")
    civitai(world)
    first = world.fetch("hf:a/b")
    fetched = len(world.cdn.seen)
    found = world.fetch("civitai:12345")
    assert (found.path, found.from_cache) == (first.path, True)
    assert (found.size, found.trigger_words) == (first.size, ("TOK", "in the style of TOK"))
    assert len(world.cdn.seen) == fetched
    first.path.write_bytes(b"x")
    assert not world.fetch("hf:a/b@main").from_cache
    assert world.fetch("hf:a/b").path.read_bytes() == DATA


def test_least_recently_used_goes_first(world: World) -> None:
    size = len(lora(100_000))
    world.use(cache_bytes=3 * size)
    urls = [world.cdn.file(f"/{n}.safetensors", lora(100_000, seed=n)) for n in range(4)]
    found = []
    for url in urls[:3]:
        found.append(world.fetch(url))
        world.clock.now += 3600
    world.fetch(urls[0])
    world.store.update(parse(urls[1]), pinned=True)
    world.clock.now += 3600
    world.fetch(urls[3])
    assert [item.path.exists() for item in found] == [True, True, False]
    assert world.store.size() == 3 * size


def test_recently_used_files_stay_whatever_the_limit(world: World) -> None:
    world.use(cache_bytes=1)
    first = world.fetch(world.cdn.file("/a.safetensors", DATA))
    second = world.fetch(world.cdn.file("/b.safetensors", OTHER))
    assert first.path.exists()
    assert second.path.exists()


def test_evicts_for_the_disk_and_gives_up_when_that_is_not_enough(world: World) -> None:
    first = world.fetch(world.cdn.file("/a.safetensors", DATA))
    world.clock.now += 3600
    world.use(free_space=lambda _: 10**9 if not first.path.exists() else 0)
    world.fetch(world.cdn.file("/b.safetensors", OTHER))
    assert not first.path.exists()
    world.clock.now += 3600
    world.use(free_space=lambda _: 0)
    with pytest.raises(NoRoomError, match="Free some space"):
        world.fetch(world.cdn.file("/c.safetensors", DATA))


def test_old_file_evicted_for_a_new_one_that_then_fails(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    world.use(cache_bytes=1)
    world.clock.now += DAY + 1
    world.cdn.file("/a.safetensors", b"x" * 5000, etags=['"two"'])
    with pytest.raises(BadFileError):
        world.fetch(url)


def test_file_that_is_gone_or_was_changed_is_fetched_again(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    found = world.fetch(url)
    found.path.unlink()
    assert not world.fetch(url).from_cache
    found.path.write_bytes(DATA[:-1])
    assert not world.fetch(url).from_cache
    found.path.write_bytes(DATA[:-1] + b"x")
    assert not world.fetch(url).from_cache
    os.utime(found.path)
    assert world.fetch(url).from_cache
    before = found.path.stat().st_mtime_ns
    assert entry_of(world).mtime_ns == before


def test_unused_time_is_written_now_and_then_only(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.fetch(url)
    stamp = index(world).stat().st_mtime_ns
    world.fetch(url)
    assert index(world).stat().st_mtime_ns == stamp
    world.clock.now += 100
    world.fetch(url)
    assert entry_of(world).used == world.clock.now


def test_file_in_use_is_not_evicted(world: World, monkeypatch: Any, caplog: Any) -> None:
    found = world.fetch(world.cdn.file("/a.safetensors", DATA))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "unlink", unlink)
    assert world.store.prune(keep_bytes=0) == []
    assert "in use" in caplog.text
    assert world.store.path(entry_of(world)) == found.path


def test_local_file(world: World) -> None:
    path = world.loras / "flux" / "mine.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(lora(500, metadata={"modelspec.trigger_phrase": "TOK"}))
    found = world.fetch("flux\\mine.safetensors")
    assert (found.path, found.from_cache) == (path, True)
    assert found.sha256 == sha256(path.read_bytes())
    assert (found.source, found.trigger_words) == ("flux/mine.safetensors", ("TOK",))
    stamp = index(world).stat().st_mtime_ns
    assert world.fetch("flux/mine.safetensors") == found
    assert index(world).stat().st_mtime_ns == stamp
    path.write_bytes(DATA)
    assert world.fetch("flux/mine.safetensors").sha256 == sha256(DATA)
    with pytest.raises(
        NotFoundError, match=r"Did you mean one of these\?\n  local:flux/mine\.safetensors$"
    ):
        world.fetch("flux/mime.safetensors")
    with pytest.raises(NotFoundError, match="hf:owner"):
        world.fetch("zzzzzzzzzzzz.safetensors")
    with pytest.raises(NotFoundError, match="there is no such file"):
        world.fetch("z" * 300 + ".safetensors")  # longer than any file's name
    path.write_bytes(raw({}))
    with pytest.raises(BadFileError, match="no tensors"):
        world.fetch("flux/mine.safetensors")


def test_fetched_file_is_a_local_file_too(world: World) -> None:
    found = world.fetch(world.cdn.file("/a.safetensors", DATA))
    assert world.store.local(LocalFile(f"flux-hotswap/{found.path.name}")) == found.path


NAMES = [
    ("a/b", "lora.safetensors", "a-b"),
    ("a/b", "trained_model.tar", "a-b"),
    ("hf:a/b", "Film Look (v2).safetensors", "a-b-Film-Look-v2"),
    ("civitai:5", "x" * 200 + ".safetensors", "civitai-5-" + "x" * 70),
    ("https://h.io/..%2f..%2fetc.safetensors", "../../etc.safetensors", "2f..-2fetc-..-..-etc"),
    ("https://h.io/con.safetensors", "con.safetensors", "lora-con"),
    ("https://h.io/NUL.x.safetensors", "NUL.x.safetensors", "lora-NUL.x"),
    ("https://h.io/%D0%B9.safetensors", "й.safetensors", "D0-B9"),
    ("https://h.io/---.safetensors", "---.safetensors", "lora"),
    ("https://h.io/?f=a.safetensors", "", "a"),
    ("data:,x", "", "data"),
]


@pytest.mark.parametrize(("text", "name", "stem"), NAMES)
def test_file_names_are_ours(text: str, name: str, stem: str) -> None:
    made = file_name(parse(text), name, "abcdef01")
    assert made == f"{stem}-abcdef01.safetensors"
    assert Path(made).name == made


def test_offline_without_a_copy(world: World) -> None:
    world.hub.fallback = lambda request: request.reply(503)
    with pytest.raises(OfflineError):
        world.fetch("hf:a/b")
    assert world.leftovers() == []


def test_switched_off_nothing_is_fetched(world: World) -> None:
    """What is here is used, whether it can move or not; a data: URI needs no network."""
    link, other = (world.cdn.file(f"/{name}.safetensors", DATA) for name in ("here", "other"))
    world.fetch(link)
    before = asked(world)
    world.use(offline=True)
    world.clock.now += 10**6
    found = world.fetch(link)
    assert (found.sha256, found.from_cache) == (sha256(DATA), True)
    with pytest.raises(RefusedError, match="FLUX_HOTSWAP_OFFLINE is set"):
        world.fetch(other)
    assert asked(world) == before
    text = "data:application/octet-stream;base64," + base64.b64encode(OTHER).decode()
    assert world.fetch(text).sha256 == sha256(OTHER)
    assert world.leftovers() == []


def test_data_uri(world: World) -> None:
    text = "data:application/octet-stream;base64," + base64.b64encode(DATA).decode()
    first = world.fetch(text)
    assert first.path.read_bytes() == DATA
    assert first.source.startswith("data:(")
    assert world.fetch(text).from_cache
    packed = base64.b64encode(tar(("x/lora.safetensors", OTHER))).decode()
    assert world.fetch(f"data:;base64,{packed}").path.read_bytes() == OTHER
    with pytest.raises(FetchError, match="only 1 bytes"):
        world.fetch("data:,x")
    with pytest.raises(FetchError, match="a web page"):
        world.fetch("data:,%3Chtml%3E" + "x" * 600)
    assert world.leftovers() == []
