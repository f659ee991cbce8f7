"""Where pictures go: on the disk, in a folder elsewhere, into answers."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from flux_hotswap.errors import SettingsError, StoreError
from flux_hotswap.hosted_api.job import Job, Status
from flux_hotswap.hosted_api.links import Links
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.outputs import Outputs

ID = "a" * 26
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(8)
NOW = 1_800_000_000.0
LINKS = Links(b"secret", lambda: NOW)

Make = Callable[..., Outputs]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(base: str = "http://127.0.0.1:5000", **options: Any) -> Outputs:
        return Outputs(Options(state=tmp_path / "state", **options), LINKS, lambda: base)

    return made


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    files.store.clear()
    yield files
    files.store.clear()


def job(*files: str, **more: Any) -> Job:
    given: dict[str, Any] = {"model": "a/b", "version": "c", "input": {}, "request": {}}
    return Job(id=ID, created=NOW, deadline=NOW + 60, files=files, **given, **more)


def keep(outputs: Outputs, attempt: int, *pictures: tuple[str, bytes]) -> list[str]:
    async def kept() -> list[str]:
        return [
            await outputs.keep(ID, attempt, number, name, data)
            for number, (name, data) in enumerate(pictures)
        ]

    return asyncio.run(kept())


def on_disk(tmp_path: Path) -> list[str]:
    root = tmp_path / "state" / "outputs"
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_attempts_lie_beside_each_other(make: Make, tmp_path: Path) -> None:
    outputs = make()
    assert keep(outputs, 1, ("ComfyUI_7.PNG", PNG), ("x.webp", WEBP)) == ["1-0.png", "1-1.webp"]
    assert keep(outputs, 2, ("../../x", b"odd")) == ["2-0.bin"]
    assert on_disk(tmp_path) == [f"{ID}/1-0.png", f"{ID}/1-1.webp", f"{ID}/2-0.bin"]
    assert keep(outputs, 1, ("x.png", PNG)) == ["1-0.png"], "the same attempt, told twice"
    path = outputs.path(ID, "1-0.png")
    assert path
    assert path.read_bytes() == PNG


@pytest.mark.parametrize("name", ["3-0.png", "../1-0.png", "1-0.png/", ".1-0.png.part", "", "x"])
def test_no_other_path_is_served(make: Make, name: str) -> None:
    outputs = make()
    keep(outputs, 1, ("x.png", PNG))
    assert outputs.path(ID, name) is None
    assert outputs.path("..", "1-0.png") is None


@pytest.mark.parametrize("base", ["http://127.0.0.1:5000", "https://h/hotswap"])
def test_a_picture_is_found_by_the_address_that_was_given_out(
    make: Make, tmp_path: Path, base: str
) -> None:
    outputs = make(base=base)
    keep(outputs, 1, ("x.png", PNG))
    (address,) = outputs.addresses(job("1-0.png", completed=NOW), listed=True)
    path = outputs.path(ID, "1-0.png")
    assert outputs.find(address) == path
    signed = address.removeprefix(base)
    others = [
        "",
        signed.partition("?")[0],
        f"https://x.org{signed}",
        f"{address}0",
        address.replace("1-0.png", "2-0.png"),
        address.replace(ID, f"../outputs/{ID}"),
    ]
    assert [outputs.find(each) for each in others] == [None] * len(others)
    later = Links(b"secret", lambda: NOW + 9e9)
    late = Outputs(Options(state=tmp_path / "state"), later, lambda: base)
    assert late.find(address) is None


def test_an_id_that_is_a_path_is_refused(make: Make) -> None:
    for given in ("..", "a/b", "", "a" * 200):
        with pytest.raises(StoreError, match="id: "):
            asyncio.run(make().keep(given, 1, 0, "x.png", PNG))
        with pytest.raises(StoreError, match="id: "):
            make().drop(given)


def test_pictures_go_into_answers_where_the_address_is_http(make: Make) -> None:
    outputs = make()
    keep(outputs, 1, ("x.png", PNG), ("x.png", WEBP))
    png, webp = outputs.addresses(job("1-0.png", "1-1.png"), listed=False)
    assert png == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert webp.startswith("data:image/webp;base64,"), "what it is, not what it is called"


@pytest.mark.parametrize(
    ("how", "base", "listed", "data"),
    [
        ("", "http://h", False, True),
        ("", "https://h", False, False),
        ("", "http://h", True, False),
        ("data", "https://h", False, True),
        ("data", "https://h", True, False),
        ("link", "http://h/hotswap", False, False),
    ],
)
def test_data_or_link(make: Make, how: str, base: str, listed: bool, data: bool) -> None:
    outputs = make(base=base, outputs=how)
    keep(outputs, 1, ("x.png", PNG))
    (address,) = outputs.addresses(job("1-0.png"), listed=listed)
    assert address.startswith("data:") == data
    if not data:
        start = f"/v1/outputs/{ID}/1-0.png"
        assert address.startswith(f"{base}{start}?")
        assert LINKS.check(start, dict(parse_qsl(urlsplit(address).query)))


def test_a_link_lives_as_long_as_the_picture(make: Make) -> None:
    outputs = make(outputs="link", keep=100.0)
    ended = job("1-0.png", status=Status.SUCCEEDED, completed=NOW + 7)
    (address,) = outputs.addresses(ended, listed=False)
    assert dict(parse_qsl(urlsplit(address).query))["expires"] == str(int(NOW) + 107)


def test_a_picture_that_was_taken_away_is_a_link(make: Make) -> None:
    (address,) = make().addresses(job("1-0.png"), listed=False)
    assert address.startswith("http://127.0.0.1:5000/v1/outputs/")


def test_one_attempt_or_all_can_be_dropped(make: Make, tmp_path: Path) -> None:
    outputs = make()
    keep(outputs, 1, ("x.png", PNG))
    keep(outputs, 11, ("x.png", PNG))
    (tmp_path / "state" / "outputs" / ID / ".1-1.png.part").write_bytes(b"half")
    outputs.drop(ID, 1)
    assert on_disk(tmp_path) == [f"{ID}/11-0.png"]
    outputs.drop(ID)
    assert list((tmp_path / "state" / "outputs").iterdir()) == []
    outputs.drop(ID)


def stray(tmp_path: Path, outputs: Outputs) -> None:
    """Leave what killed processes leave."""
    keep(outputs, 1, ("x.png", PNG))
    keep(outputs, 2, ("x.png", PNG))
    root = tmp_path / "state" / "outputs"
    (root / ID / ".2-1.png.part").write_bytes(b"half")
    (root / "gone").mkdir()
    (root / "gone" / "1-0.png").write_bytes(PNG)
    (root / "empty").mkdir()


def test_a_start_clears_what_belongs_to_no_job(make: Make, tmp_path: Path) -> None:
    outputs = make()
    outputs.sweep(lambda _: None)
    stray(tmp_path, outputs)
    outputs.sweep({ID: ("2-0.png",)}.get)
    assert on_disk(tmp_path) == [f"{ID}/2-0.png"]
    assert [path.name for path in (tmp_path / "state" / "outputs").iterdir()] == [ID]


# --- a folder elsewhere ---


def publish(outputs: Outputs, *names: str) -> None:
    asyncio.run(outputs.publish(ID, names))


def test_copies_go_to_a_folder(make: Make, tmp_path: Path) -> None:
    away = tmp_path / "away"
    outputs = make(outputs=f"file://{away}/deep/", outputs_public="https://cdn.example/p")
    names = keep(outputs, 1, ("x.png", PNG), ("x.webp", WEBP))
    publish(outputs, *names)
    folder = away / "deep" / ID
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "1-0.png": PNG,
        "1-1.webp": WEBP,
    }
    assert outputs.addresses(job(*names), listed=False) == [
        f"https://cdn.example/p/{ID}/1-0.png",
        f"https://cdn.example/p/{ID}/1-1.webp",
    ]
    keep(outputs, 2, ("x.png", PNG))
    publish(outputs, "2-0.png")
    outputs.drop(ID, 1)
    outputs.close()
    assert [path.name for path in folder.iterdir()] == ["2-0.png"]
    assert on_disk(tmp_path) == [f"{ID}/2-0.png"]


def test_copies_go_to_what_has_no_moves(make: Make, memory: MemoryFileSystem) -> None:
    outputs = make(outputs="memory://bucket/path")
    names = keep(outputs, 1, ("x.png", PNG))
    publish(outputs, *names)
    assert sorted(memory.store) == [f"/bucket/path/{ID}/1-0.png"]
    assert outputs.addresses(job(*names), listed=True) == [f"memory://bucket/path/{ID}/1-0.png"]
    memory.pipe_file("/bucket/path/somebody/else.png", b"kept")
    outputs.drop(ID)
    outputs.close()
    assert sorted(memory.store) == ["/bucket/path/somebody/else.png"]


def test_a_start_clears_the_folder_too(make: Make, tmp_path: Path) -> None:
    away = tmp_path / "away"
    outputs = make(outputs=f"file://{away}")
    stray(tmp_path, outputs)
    publish(outputs, "1-0.png", "2-0.png")
    (away / ID / ".2-1.png.part").write_bytes(b"half")
    (away / "somebody").mkdir()
    (away / "somebody" / "1-0.png").write_bytes(b"kept")
    outputs.sweep({ID: ("2-0.png",)}.get)
    outputs.close()
    left = sorted(p.relative_to(away).as_posix() for p in away.rglob("*") if p.is_file())
    assert left == [f"{ID}/2-0.png", "somebody/1-0.png"]
    assert on_disk(tmp_path) == [f"{ID}/2-0.png"]


def test_a_copy_is_never_seen_half(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    whole = LocalFileSystem.put_file

    def watched(self: LocalFileSystem, lpath: str, rpath: str, **more: Any) -> None:
        seen.append(Path(rpath).name)
        whole(self, lpath, rpath, **more)

    monkeypatch.setattr(LocalFileSystem, "put_file", watched)
    outputs = make(outputs=f"file://{tmp_path}/away")
    publish(outputs, *keep(outputs, 1, ("x.png", PNG)))
    assert seen == [".1-0.png.part"]


def test_a_folder_that_cannot_be_written_is_told(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    outputs = make(outputs=f"file://{tmp_path}/file/x?token=secret&more=1")
    names = keep(outputs, 1, ("x.png", PNG))
    with pytest.raises(
        StoreError, match=r"--outputs file://.*/file/x cannot be written to"
    ) as told:
        publish(outputs, *names)
    assert "secret" not in str(told.value)
    assert "Not a directory" in str(told.value)


def test_nobody_reads_how_a_folder_is_entered(
    make: Make, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries say the whole address in their errors, and the clients of the API read those."""
    outputs = make(outputs="memory://someone:pass%2Fword@host/bucket?key=AKIA1234")

    def fails(self: MemoryFileSystem, lpath: str, rpath: str, **more: Any) -> None:
        raise OSError(f"no entry for {rpath} as someone with pass/word and key AKIA1234")

    monkeypatch.setattr(MemoryFileSystem, "put_file", fails)
    names = keep(outputs, 1, ("x.png", PNG))
    with pytest.raises(StoreError, match="--outputs memory://host/bucket cannot") as told:
        publish(outputs, *names)
    assert not re.search("word|AKIA", str(told.value))
    (address,) = outputs.addresses(job("1-0.png"), listed=True)
    assert address == f"memory://host/bucket/{ID}/1-0.png"


def test_what_cannot_be_cleared_is_tried_again(
    make: Make, tmp_path: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = make(outputs="memory://bucket")
    publish(outputs, *keep(outputs, 1, ("x.png", PNG)))

    def fails(self: MemoryFileSystem, path: str) -> None:
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "rm_file", fails)
        outputs.drop(ID)
        outputs.close()
    assert memory.store
    assert on_disk(tmp_path) == [f"{ID}/1-0.png"], "its name tells of the copy"
    assert (tmp_path / "state" / "outputs" / ID / "1-0.png").read_bytes() == b"", "the data went"
    again = make(outputs="memory://bucket")
    again.sweep(lambda _: ())
    again.close()
    assert (memory.store, on_disk(tmp_path)) == ({}, [])


def test_a_missing_package_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingsError, match=r"--outputs s3://b needs .*pip install s3fs"):
        make(outputs="s3://b?key=secret")
    with pytest.raises(SettingsError, match="--outputs nothing://x cannot be used"):
        make(outputs="nothing://x")


def test_fsspec_is_needed_only_for_a_folder(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fsspec.__name__ in sys.modules
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert keep(make(), 1, ("x.png", PNG)) == ["1-0.png"]
    with pytest.raises(SettingsError, match="pip install"):
        make(outputs="s3://b")
