"""A tar on the disk: its one file is taken, everything odd is refused."""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch.servers import lora, sha256, tar
from flux_hotswap.errors import BadFileError, FetchError, RefusedError
from flux_hotswap.files.tar import Member, check_start, find_member, unpack

DATA = lora(3_000)
NAME = "output/flux_train_replicate/lora.safetensors"


def take(data: bytes) -> tuple[bytes, Member]:
    """What is taken out of a tar, and where it lay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tar")
        path.write_bytes(data)
        with path.open("rb") as file:
            member = find_member(file, label="a/b", max_bytes=10_000)
        size, digest = unpack(path, label="a/b", max_bytes=10_000)
        took = path.read_bytes()
    assert (size, digest) == (len(took), sha256(took))
    return took, member


def entry(name: str, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format(form: int) -> None:
    name = NAME if form == tarfile.USTAR_FORMAT else "deep/" * 40 + "ü.safetensors"
    data = tar(("a.txt", b"hello"), (name, DATA), ("b.txt", b"x" * 600), form=form)
    took, member = take(data)
    assert took == DATA
    assert (member.name, member.size) == (name, len(DATA))
    assert data[member.start : member.start + member.size] == DATA


def test_folders_links_names_of_macos_and_global_headers() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "x"}) as file:
        folder = tarfile.TarInfo("output")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, data in ((f"output/._{NAME.rsplit('/', maxsplit=1)[-1]}", b"mac"), (NAME, DATA)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.pax_headers = {"size": str(len(data)), "mtime": "1.5"}
            file.addfile(info, io.BytesIO(data))
    assert take(buffer.getvalue())[0] == DATA


def test_empty_file_is_taken_and_left_to_the_header_check() -> None:
    assert take(tar((NAME, b"")))[0] == b""


def test_a_file_of_many_blocks_moves_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_hotswap.files.tar.CHUNK", 700)
    assert take(tar((NAME, DATA), ("b.txt", b"x" * 9000)))[0] == DATA
    assert take(tar(("b.txt", b"x" * 9000), (NAME, DATA)))[0] == DATA


@pytest.mark.parametrize(
    ("block", "fits"),
    [
        (entry("a.txt"), True),
        (bytes(512), True),
        (b"\x1f\x8b" + b"\1" * 510, False),
        (b"<html>" + b" " * 506, False),
    ],
    ids=["an entry", "an empty tar", "gzip", "a page"],
)
def test_its_first_block_tells_before_the_rest_comes(block: bytes, fits: bool) -> None:
    if fits:
        check_start(block, label="a/b")
        return
    with pytest.raises(BadFileError, match="a/b: the tar cannot be used: it is no tar"):
        check_start(block, label="a/b")


def pax(record: bytes, size: int | None = None) -> bytes:
    head = entry("p", type=tarfile.XHDTYPE, size=len(record) if size is None else size)
    return head + record + b"\0" * (-len(record) % 512)


GZIP = b"\x1f\x8b" + b"\1" * 600
REFUSED: list[tuple[str, bytes, type[FetchError], str]] = [
    ("none", tar(("a.txt", b"x")), BadFileError, "no .safetensors file"),
    ("empty", b"", BadFileError, "no .safetensors file"),
    ("two", tar((NAME, DATA), ("b.safetensors", DATA)), BadFileError, "several"),
    ("no-tar", GZIP, BadFileError, "no tar"),
    ("page", b"<html>" + b" " * 600, BadFileError, "no tar"),
    ("cut", tar((NAME, DATA))[:1500], BadFileError, "in the middle"),
    ("cut-head", tar((NAME, DATA))[:300], BadFileError, "in the middle"),
    ("climbs", tar(("../lora.safetensors", DATA)), RefusedError, "leads out"),
    ("climbs-aside", tar(("a/..\\b.txt", b"")), RefusedError, "leads out"),
    ("absolute", tar(("/etc/lora.safetensors", DATA)), RefusedError, "leads out"),
    ("symlink", entry(NAME, type=tarfile.SYMTYPE, linkname="/etc/passwd"), RefusedError, "a link"),
    ("hard-link", entry("x", type=tarfile.LNKTYPE, linkname=NAME), RefusedError, "a link"),
    ("device", entry("x", type=tarfile.CHRTYPE), RefusedError, "not an ordinary file"),
    ("fifo", entry("x", type=tarfile.FIFOTYPE), RefusedError, "not an ordinary file"),
    ("sparse", entry("x", type=tarfile.GNUTYPE_SPARSE), RefusedError, "not an ordinary file"),
    ("bomb", entry(NAME, size=2**40), RefusedError, "claims"),
    ("long-name", entry("x", type=tarfile.GNUTYPE_LONGNAME, size=2**30), RefusedError, "too large"),
    ("pax-odd", pax(b"no record\n"), BadFileError, "damaged"),
    ("pax-short", pax(b"99 path=x\n"), BadFileError, "damaged"),
    ("pax-zero", pax(b"3 path=x\n"), BadFileError, "damaged"),
    ("pax-size", pax(b"11 size=-5\n") + entry(NAME, size=5), BadFileError, "no sound size"),
    ("pax-climbs", pax(b"13 path=../x\n") + entry(NAME, size=5), RefusedError, "leads out"),
    ("pax-nul", pax(b"12 path=a\0b\n") + entry(NAME, size=5), RefusedError, "leads out"),
    (
        "pax-sparse",
        pax(b"22 GNU.sparse.major=1\n") + entry(NAME, size=5),
        RefusedError,
        "not an ordinary file",
    ),
]


LONGEST = 2**20
LARGE: list[tuple[str, bytes, str]] = [
    ("records", pax(b"5 a=\n" * (LONGEST // 5)), "more than 1000 records"),
    ("one record", pax(b"1048576 a=" + b"x" * (LONGEST - 11) + b"\n"), "no .safetensors"),
    ("no record", pax(b"1" * LONGEST), "damaged"),
    ("no end of the key", pax(b"99 " + b"a" * (LONGEST - 3)), "damaged"),
    ("descriptions", pax(b"12 comment=\n" + bytes(2**20 - 12)) * 5, "damaged"),
    ("empty records in many", pax(b"5 a=\n" * 1000) * 900, "description is too large"),
    ("long name", pax(b"8000 path=" + b"x/" * 3994 + b"\n\n") + entry(NAME), "letters"),
]


@pytest.mark.parametrize(
    ("data", "words"), [row[1:] for row in LARGE], ids=[row[0] for row in LARGE]
)
def test_a_description_costs_no_time(data: bytes, words: str) -> None:
    """A stranger's tar of a megabyte once took 11 s."""
    began = time.thread_time()
    with pytest.raises(FetchError, match=words):
        take(data)
    assert time.thread_time() - began < 4


def test_a_long_description_that_a_tool_made() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo(NAME)
        info.size = len(DATA)
        info.pax_headers = {f"SCHILY.xattr.{n}": "x" * 1000 for n in range(200)}
        file.addfile(info, io.BytesIO(DATA))
    assert take(buffer.getvalue())[0] == DATA


@pytest.mark.parametrize(
    ("data", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused_in_its_own_words(data: bytes, error: type[FetchError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        take(data)
    assert str(caught.value).startswith("a/b: the tar")


def test_endless_entries() -> None:
    with pytest.raises(RefusedError, match="more than 10000 entries"):
        take(entry("x") * 10_001)


def test_an_extension_without_content() -> None:
    data = entry("p", type=tarfile.XHDTYPE, size=0) + tar((NAME, DATA))
    assert take(data)[0] == DATA


@settings(max_examples=60)
@given(at=st.integers(0, 2_000), value=st.integers(0, 255))
def test_any_damage_is_one_of_our_errors_or_none(at: int, value: int) -> None:
    data = bytearray(tar(("a.txt", b"hello"), (NAME, DATA[:600])))
    data[at] = value
    try:
        take(bytes(data))
    except FetchError:
        return
