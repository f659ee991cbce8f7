"""A value by which a prompt is refused on exactly one input, with our words."""

from __future__ import annotations

from typing import Final, NoReturn

from ..errors import InputError
from ..ops.redact import clean_text

_SHOWN: Final = 200
_LOOKED_AT: Final = 4096
"""Letters of a text that are looked at; they hold the query that starts in the first 200."""


class Refused(str):
    """A value that ComfyUI's check of a prompt cannot take for any type; `why` is its error.

    It still is the start of what was given, so that it can be sent and kept as JSON. ComfyUI writes
    it into its log, which gets nothing secret and nothing long.
    """

    why: str

    def __new__(cls, value: object, why: str) -> Refused:
        """Refuse a value."""
        made = super().__new__(cls, _start(value if isinstance(value, str) else repr(value)))
        made.why = why
        return made

    def _refuse(self) -> NoReturn:
        raise InputError(self.why)

    __int__ = __float__ = __bool__ = __str__ = _refuse

    def __format__(self, spec: str) -> str:
        """Return the text: the usual way would ask `__str__`."""
        return format(self[:], spec)

    def __eq__(self, other: object) -> bool:
        """Be in no list of choices."""
        return self is other

    __hash__ = object.__hash__


def _start(text: str) -> str:
    if text[:5].lower() != "data:":
        text = clean_text(text[:_LOOKED_AT], "")
    # Half a character cannot be written into the log.
    start = text[:_SHOWN].encode("utf-8", "backslashreplace").decode()
    return start if len(text) <= _SHOWN else f"{start}..."


class RefusedChoice(Refused):
    """The same for a drop-down list, where ComfyUI's error has room for nothing but the value."""

    def __format__(self, spec: str) -> str:
        """Return the reason, for versions that say the value so."""
        return format(self.why, spec)

    def __repr__(self) -> str:
        """Return the reason, for versions that say the value so."""
        return repr(self.why)
