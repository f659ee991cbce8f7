"""What a client reads of an event is what was sent."""

from __future__ import annotations

import pytest

from flux_hotswap.hosted_api.streams import encoded


def read(sent: bytes) -> dict[str, str]:
    """Read one event as the format's standard says: its lines of data, joined by line feeds."""
    fields: dict[str, str] = {}
    *lines, last, after = sent.decode().split("\n")
    assert (last, after) == ("", ""), "an empty line ends an event"
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("Using seed: 7", "Using seed: 7", id="a piece of a line"),
        pytest.param("Using seed: 7\n", "Using seed: 7\n", id="a line"),
        pytest.param("\n", "\n", id="a line feed"),
        pytest.param("a\n\n  0%|\n", "a\n\n  0%|\n", id="lines, one of them empty"),
        pytest.param("a\r\nb\rc", "a\nb\nc", id="other ends of lines"),
        pytest.param("a\u2028b\x0bc\x85d", "a\u2028b\x0bc\x85d", id="no ends of lines"),
    ],
)
def test_a_text_arrives_whole(text: str, arrives: str) -> None:
    assert read(encoded(3, "logs", text)) == {"id": "3", "event": "logs", "data": arrives}
