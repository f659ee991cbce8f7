"""The head of a safetensors file: what is sound, and each way to be unsound in its own words."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetch.servers import lora, raw, tar
from flux_hotswap.errors import BadFileError
from flux_hotswap.files.header import MAX_TENSORS, Tensor, looks_like, read

GOOD = {"dtype": "F16", "shape": [2, 1], "data_offsets": [0, 4]}


def tensor(**changes: Any) -> dict[str, Any]:
    return {"a": {**GOOD, **changes}}


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x" * 600)
    return buffer.getvalue()


BAD: list[tuple[str, bytes, str]] = [
    ("empty", b"", "only 0 bytes"),
    ("tiny", b"\x02\0\0\0\0\0\0\0{", "only 9 bytes"),
    ("huge-head", struct.pack("<Q", 2**40) + b"{}" + b" " * 50, "more than any LoRA needs"),
    ("lying-head", struct.pack("<Q", 5000) + b"{}" + b" " * 50, "and the file has only 60"),
    ("no-json", raw(b"{nope", b""), "not valid JSON"),
    ("no-utf8", raw(b'{"\xff":1}', b""), "not valid JSON"),
    ("deep", raw(b'{"a":' + b"[" * 100_000, b""), "not valid JSON"),
    ("list", raw(b" []", b""), "not a JSON object"),
    ("nan", raw(b'{"a": NaN}', b""), "holds NaN"),
    ("twice", raw(b'{"a": 1, "a": 2}', b""), "the same thing twice"),
    ("no-tensors", raw({"__metadata__": {}}), "no tensors"),
    ("metadata-list", raw({"__metadata__": []}), "metadata"),
    ("metadata-number", raw({"__metadata__": {"a": 1}}), "metadata"),
    ("no-object", raw({"a": 5}), "not described"),
    ("dtype", raw(tensor(dtype="F17"), b"1234"), "unknown dtype"),
    ("dtype-list", raw(tensor(dtype=["x" * 200]), b"1234"), "unknown dtype"),
    ("shape", raw(tensor(shape="x"), b"1234"), "no sound shape"),
    ("shape-negative", raw(tensor(shape=[-2, -1]), b"1234"), "no sound shape"),
    ("shape-bool", raw(tensor(shape=[2, True]), b"1234"), "no sound shape"),
    ("shape-long", raw(tensor(shape=[1] * 40), b"1234"), "no sound shape"),
    ("shape-huge", raw(tensor(shape=[2**63]), b"1234"), "no sound shape"),
    ("offsets", raw(tensor(data_offsets=[0]), b"1234"), "no sound data_offsets"),
    ("offsets-turned", raw(tensor(data_offsets=[4, 0]), b"1234"), "no sound data_offsets"),
    ("size", raw(tensor(data_offsets=[0, 6]), b"123456"), "does not have the size"),
    ("overlap", raw({"a": GOOD, "b": GOOD}, b"1234"), "overlaps"),
    ("hole", raw({"a": {**GOOD, "data_offsets": [2, 6]}}, b"123456"), "a hole"),
    ("cut", raw(tensor(), b"12"), "need 4 bytes of data and the file has 2"),
    ("more", raw(tensor(), b"123456"), "need 4 bytes of data and the file has 6"),
    ("pickle", pickle.dumps({"a": "x" * 600}, protocol=4), "Python pickle"),
    ("zip", zipped(), "zip archive"),
    ("gzip", b"\x1f\x8b" + b"x" * 600, "gzip"),
    ("tar", tar(("a", b"x")), "tar archive"),
    ("page", b"\n <!DOCTYPE html>" + b" " * 600, "web page"),
    ("json", b'{"error": "no"}', "JSON text"),
    ("lfs", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
]


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFileError, match=words) as caught:
        read(path, name="hf:a/b")
    assert str(caught.value).startswith("hf:a/b cannot be used")


def many(count: int) -> bytes:
    spans = {
        f"layer.{n}": {"dtype": "F16", "shape": [1, 1], "data_offsets": [2 * n, 2 * n + 2]}
        for n in range(count)
    }
    return raw(spans, bytes(2 * count))


LARGE: list[tuple[str, bytes]] = [
    ("tensors", many(160_000)),
    ("one too many", many(MAX_TENSORS + 1)),
    ("lists", raw(b'{"a":[' + b"[]," * 5_500_000 + b"[]]}")),
    ("objects", raw(b'{"a":[' + b"{}," * 5_500_000 + b"{}]}")),
    ("numbers", raw(b'{"a":[' + b"1," * 8_000_000 + b"1]}")),
    ("names", raw(b"{" + b",".join(b'"%x":0' % n for n in range(1_400_000)) + b"}")),
    ("quotes", raw(b'{"a":' + b'"' * (2**24 - 5))),
    ("backslashes", raw(b'{"a":"' + b"\\" * (2**24 - 7))),
    ("escaped quotes", raw(b"{" + b'\\"' * 2**17)),
    ("escaped quotes in a text", raw(b'{"' + b'\\"' * 2**17)),
    ("texts of a quote", raw(b"{" + b'"\\""' * 2**15)),
]


@pytest.mark.parametrize("data", [row[1] for row in LARGE], ids=[row[0] for row in LARGE])
def test_a_head_costs_no_time(tmp_path: Path, data: bytes) -> None:
    """A head of 13 MB once took 11 s, and one of 256 KB minutes."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    began = time.thread_time()
    with pytest.raises(BadFileError, match=r"than any LoRA|not valid JSON"):
        read(path)
    assert time.thread_time() - began < 4


@pytest.mark.parametrize(
    "head",
    [many(MAX_TENSORS)]
    + [
        raw({"a": GOOD, "__metadata__": {"tags": text * 10**6}}, b"1234")
        for text in ('{"a": 1}', '\\"', "[1,\\\\]")
    ],
    ids=["tensors", "metadata", "quotes", "backslashes"],
)
def test_the_largest_that_is_sound(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(head)
    assert read(path).tensors


def test_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    head = {
        "__metadata__": {"k": "v"},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]},
        "a": GOOD,
        "none": {"dtype": "BF16", "shape": [0, 5], "data_offsets": [4, 4]},
        "f4": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
    }
    path.write_bytes(raw(head, b"x" * 10))
    found = read(path)
    assert found.tensors["a"] == Tensor("F16", (2, 1), 0, 4)
    assert found.metadata == {"k": "v"}


def test_a_head_length_that_looks_like_a_pickle(tmp_path: Path) -> None:
    """0x80 0x02 is how pickles start, and how a head of 640 bytes does."""
    head = tensor()
    head["__metadata__"] = {"pad": ""}
    head["__metadata__"]["pad"] = "x" * (640 - len(raw(head)) + 8)
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw(head, b"1234"))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read(path).tensors


@given(st.binary(max_size=700))
def test_any_start_is_named_or_not(head: bytes) -> None:
    looks_like(head)


@given(at=st.integers(0, 250), value=st.integers(0, 255), cut=st.integers(0, 300))
def test_any_damage_is_a_bad_file_or_none(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: int
) -> None:
    data = bytearray(lora(64))
    data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(bytes(data[: len(data) - cut if cut < 150 else None]))
    try:
        read(path)
    except BadFileError:
        return
