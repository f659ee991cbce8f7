"""data: URIs."""

from __future__ import annotations

import pytest

from prediction.data_uri import is_data_uri, read_data_uri


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
        ("data:;base64,AAA", "broken base64"),
        ("data:;base64,A A=", "broken base64"),
        ("data:;base64,_-8=", "broken base64"),
        ("data:;base64,\u00fc", "broken base64"),
        ("data:,\ud800", "broken character"),
    ],
    ids=ascii,
)
def test_broken(uri: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_data_uri(uri)
