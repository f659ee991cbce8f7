"""data: URIs."""

from __future__ import annotations

import base64
import random
import time
from urllib.parse import unquote_to_bytes

import pytest

from flux_hotswap.prediction import data_uri
from flux_hotswap.prediction.data_uri import DATA_LIMIT, check_data_uri, is_data_uri, read_data_uri


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("data:,", True), ("DATA:image/png;base64,", True), ("data", False), ("", False),
        ("https://example.com/data:,", False), ("data.png", False),
    ],
)  # fmt: skip
def test_is_data_uri(text: str, is_one: bool) -> None:
    assert is_data_uri(text) is is_one


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:,", b""),
        ("data:,a%20b,c", b"a b,c"),
        ("data:text/plain;charset=utf-8,%C3%BC", b"\xc3\xbc"),
        ("data:,\u00fc", b"\xc3\xbc"),
        ("data:;base64,", b""),
        ("data:;base64,AAEC", b"\x00\x01\x02"),
        ("data:image/png;base64,AA==", b"\x00"),
        ("data:image/png;BASE64,AA%3D%3D", b"\x00"),
        ("data:;base64,%2B%2F8%3D", b"\xfb\xff"),
        ("data:application/base64,AA==", b"AA=="),
        ("data:;base64,AAA", b"\x00\x00"),
        ("data:;base64,A A=", b"\x00"),
        ("data:;base64 ,AA==", b"\x00"),
        ("data:;base64,_-8=", b"\xff\xef"),
        ("data:;base64,_-8%0D%0A", b"\xff\xef"),
        ("data:;base64," + base64.encodebytes(b"x" * 300).decode(), b"x" * 300),
        ("data:;base64;charset=x,AA==", b"AA=="),
    ],
)
def test_data(uri: str, data: bytes) -> None:
    assert read_data_uri(uri) == data


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("data:", "comma"),
        ("data:image/png;base64", "comma"),
        ("data:;base64,A", "broken base64"),
        ("data:;base64,AA=A", "broken base64"),
        ("data:;base64,AA!A", "broken base64"),
        ("data:;base64,\u00fc", "broken base64"),
        ("data:,\ud800", "broken character"),
    ],
    ids=ascii,
)
def test_broken(uri: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_data_uri(uri)


def test_escapes_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a piece ends, what comes out is what the whole text means."""
    monkeypatch.setattr(data_uri, "_SLICE", 7)
    letters = random.Random(1)
    for _ in range(500):
        text = "".join(letters.choice("%4a1Z,") for _ in range(letters.randint(0, 60)))
        assert read_data_uri(f"data:,{text}") == unquote_to_bytes(text)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("data:," + "%41" * (8 * 2**20), "escaped characters"),
        ("data:;base64," + "%41" * (8 * 2**20), "escaped characters"),
        ("data:," + "a" * (DATA_LIMIT * 2), "64 MB at most"),
        ("data:" + "a" * 10_000 + ",", "comma"),
    ],
    ids=["escapes", "escapes of base64", "too long", "long head"],
)
def test_what_costs_too_much_is_refused_at_once(uri: str, problem: str) -> None:
    begun = time.thread_time()
    for look in (check_data_uri, read_data_uri):
        with pytest.raises(ValueError, match=problem):
            look(uri)
    assert time.thread_time() - begun < 2
