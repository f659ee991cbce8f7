"""The folder of quantised checkpoints: fingerprints, records, what is thrown out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.ops.checkpoint import kept as cache
from flux_hotswap.ops.checkpoint.kept import Record

HEAD = b"head" * 25
SPANS = [(100, 100), (100, 200), (200, 5_000), (5_000, 17_000), (17_000, 100_000)]
"""Empty, shorter than a block, about one, about three, more."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEAD + bytes(range(256)) * 390 + bytes(100_000 - 100 - 256 * 390))
    assert path.stat().st_size == 100_000
    return path


def print_of(path: Path, head: bytes = HEAD) -> str:
    return cache.fingerprint(path, head, SPANS)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- fingerprints ---


@pytest.mark.parametrize(
    "at",
    [
        *(100, 150, 199),
        *(200, 2_600, 4_999),
        *(5_000, 8_000, 11_000, 14_000, 16_999),
        *(17_000, 21_095, (17_000 + 100_000 - 4_096) // 2, 60_000, 95_904, 99_999),
    ],
)
def test_a_change_is_noticed(file: Path, at: int) -> None:
    before = print_of(file)
    assert print_of(file) == before
    flip(file, at)
    assert print_of(file) != before
    flip(file, at)
    assert print_of(file) == before


def test_the_head_and_the_size_count(file: Path) -> None:
    before = print_of(file)
    assert print_of(file, HEAD[:-1] + b"!") != before
    with file.open("ab") as more:
        more.write(b"0")
    assert print_of(file) != before


def test_the_name_the_date_and_the_order_do_not_count(file: Path) -> None:
    before = print_of(file)
    other = file.rename(file.with_name("b.safetensors"))
    os.utime(other, (1, 1))
    assert print_of(other) == before
    assert cache.fingerprint(other, HEAD, reversed(SPANS)) == before


def test_a_file_of_zeros_is_noticed(file: Path) -> None:
    before = print_of(file)
    file.write_bytes(bytes(100_000))
    assert print_of(file) != before


def test_keys_tell_how_it_was_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache.key_of(source, modulation=way) for source in "ab" for way in (False, True)}
    assert len(keys) == 4
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    assert cache.key_of("a", modulation=False) not in keys


@pytest.mark.parametrize("name", ["flux1-dev.safetensors", "my.flux.v2.safetensors", "ü" * 120])
def test_names(tmp_path: Path, name: str) -> None:
    path = cache.path_for(tmp_path, name, "0123456789abcdef")
    assert path.parent == tmp_path
    assert path.name.startswith(Path(name).stem[:50])
    assert path.name.endswith("-int8-0123456789ab.safetensors")
    path.with_suffix(".4194304.part").write_bytes(b"")  # the file system takes it


# --- records ---

RECORD = Record(source="flux1-dev.safetensors", key="k", size=3, check="c")


def stored(folder: Path, name: str = "a", *, size: int = 3, used: float = 0) -> Path:
    path = cache.path_for(folder, f"{name}.safetensors", "0" * 64)
    path.write_bytes(b"0" * size)
    cache.write_record(path, RECORD)
    os.utime(path.with_suffix(".json"), (used, used))
    return path


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = stored(tmp_path)
    assert cache.read_record(path) == RECORD
    cache.write_record(path, Record("b", "l", 4, "d"))
    assert cache.read_record(path) == Record("b", "l", 4, "d")
    assert {entry.suffix for entry in tmp_path.iterdir()} == {".safetensors", ".json"}


BROKEN: dict[str, Any] = {
    "empty": "",
    "half": json.dumps({"source": "a", "key": "k"})[:-3],
    "a list": "[1, 2]",
    "a word": '"a"',
    "too little": json.dumps({"source": "a", "key": "k", "size": 3}),
    "too much": json.dumps({"source": "a", "key": "k", "size": 3, "check": "c", "more": 1}),
    "zeros": "\0" * 100,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    path = stored(tmp_path)
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    assert cache.read_record(path) is None


def test_a_record_in_another_encoding_is_none(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.with_suffix(".json").write_bytes(b"\xff\xfe\x00{")
    assert cache.read_record(path) is None


def test_no_record_is_none(tmp_path: Path) -> None:
    assert cache.read_record(tmp_path / "a.safetensors") is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.with_suffix(".part").mkdir()
    with pytest.raises(OSError, match="directory"):
        cache.write_record(path, Record("b", "l", 4, "d"))
    assert cache.read_record(path) == RECORD


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    path = stored(tmp_path)
    cache.remove(path)
    cache.remove(path)
    assert list(tmp_path.iterdir()) == []


# --- what is thrown out ---


def left(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("room", "gone"),
    [(60, ""), (59, "b"), (50, "b"), (49, "bc"), (1, "bc"), (0, "bc")],
)
def test_the_longest_unused_go_first(tmp_path: Path, room: int, gone: str) -> None:
    keep = stored(tmp_path, "a", size=20, used=1)
    stored(tmp_path, "b", size=10, used=2)
    stored(tmp_path, "c", size=30, used=3)
    deleted = cache.prune(tmp_path, room=room, keep=keep)
    assert [path.name[0] for path in deleted] == list(gone)
    assert left(tmp_path) == set("abc") - set(gone)
    assert len(list(tmp_path.glob("*.json"))) == 3 - len(gone)


def test_using_a_file_keeps_it(tmp_path: Path) -> None:
    first = stored(tmp_path, "a", size=10, used=1)
    stored(tmp_path, "b", size=10, used=2)
    cache.touch(first)
    (deleted,) = cache.prune(tmp_path, room=10, keep=tmp_path / "none")
    assert deleted.name[0] == "b"


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "mine.json").write_bytes(b"{}")
    (tmp_path / "x-int8-y.safetensors").write_bytes(b"0" * 100)  # without a record
    stored(tmp_path, "a", size=10)
    cache.prune(tmp_path, room=0, keep=tmp_path / "none")
    assert left(tmp_path) == {"mine.safetensors", "x"}


def test_what_cannot_be_deleted_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows deletes no file that a loaded model is mapped from."""
    mapped = stored(tmp_path, "a", size=10, used=1)
    stored(tmp_path, "b", size=10, used=2)
    unlink = Path.unlink

    def as_on_windows(path: Path, missing_ok: bool = False) -> None:
        if path == mapped:
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", as_on_windows)
        (deleted,) = cache.prune(tmp_path, room=10, keep=tmp_path / "none")
    assert deleted.name[0] == "b", "the next one makes the room"
    assert mapped.name in caplog.text
    assert cache.prune(tmp_path, room=0, keep=tmp_path / "none") == [mapped]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert cache.prune(tmp_path / "none", room=0, keep=tmp_path) == []
