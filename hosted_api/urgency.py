"""How urgent a call is: the header `Priority` of RFC 9218, and what a token may ask for. Pure.

The header is a dictionary of structured fields (RFC 9651), of which `u` counts here: `u=0` to
`u=7`, the lower the more urgent. What cannot be read as such is ignored whole; members that are
unknown, and a `u` that is no integer of 0 to 7, are ignored by themselves. `i` means nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .job import URGENCY

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_BARE: Final = (
    r"(?:@?-?\d{1,15}(?!\d)(?:\.\d{1,3})?"  # integer, date, decimal
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"|%"[ !#-~]*"'  # texts
    r"|:[A-Za-z0-9+/=]*:|\?[01]"  # bytes, boolean
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*)"  # token
)
_PARAMETERS: Final = rf"(?:;[ ]*{_KEY}(?:={_BARE})?)*"
_ITEM: Final = rf"{_BARE}{_PARAMETERS}"
_INNER: Final = rf"\([ ]*(?:{_ITEM}(?:[ ]+{_ITEM})*[ ]*)?\){_PARAMETERS}"
_MEMBER: Final = re.compile(
    rf"(?P<key>{_KEY})(?:=(?:(?P<bare>{_BARE}){_PARAMETERS}|{_INNER})|{_PARAMETERS})", re.ASCII
)
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_LEVEL: Final = re.compile(r"-?0*[0-7]", re.ASCII)
_LONGEST: Final = 1024
"""Letters; a header that is longer is ignored."""


def read_priority(header: str) -> int | None:
    """Return the urgency that a header asks for; None where it asks for none."""
    text = header.strip(" ")
    if not text or len(text) > _LONGEST:
        return None
    found: int | None = None
    at = 0
    while True:
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        if member["key"] == "u":  # of several the last one counts
            found = _level(member["bare"] or "")
        at = member.end()
        if at == len(text):
            return found
        comma = _COMMA.match(text, at)
        if comma is None:
            return None
        at = comma.end()


def _level(text: str) -> int | None:
    if not _LEVEL.fullmatch(text):
        return None
    value = int(text)
    return value if 0 <= value <= 7 else None


def granted(asked: int | None, owner: str, usual: Mapping[str, int] | None) -> tuple[int, str]:
    """Return how urgent a call is, and what its log says of that.

    Args:
        asked: by the call.
        owner: who calls.
        usual: each owner's usual and most urgent level; None where everybody may ask for any.
    """
    if usual is None:
        return (URGENCY if asked is None else asked), ""
    own = usual.get(owner, URGENCY)
    if asked is None:
        return own, ""
    if asked < own:
        return own, f"Priority: u={asked} is more than this token may ask for; u={own} is used."
    return asked, ""
