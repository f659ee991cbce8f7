"""The pack's errors.

HotswapError
├── RequestError(ValueError)        a field of a request is missing, unknown or out of range
├── ImageError(ValueError)          an input picture or mask that cannot be used
└── MissingFileError(FileNotFoundError)   a model file that has to be put somewhere first

Each message names the field or file, what is wrong with it, and what to do.
"""

from __future__ import annotations

from typing import Final

_SHOWN: Final = 60
"""Most characters of a value that a message shows."""


class HotswapError(Exception):
    """Root of everything this pack raises on purpose."""


class RequestError(HotswapError, ValueError):
    """A request that cannot be planned.

    Attributes:
        field: name of the offending field, as in the schema.
        value: what was given.
        allowed: what would be accepted, as a phrase.
    """

    def __init__(self, field: str, value: object, allowed: str, problem: str = "") -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        # An unknown field can have any name; the message stays short and on one line.
        plain = field.isprintable() and field.strip() != "" and len(field) <= _SHOWN
        problem = problem or f"{shorten(value)} is not allowed"
        super().__init__(f"{field if plain else shorten(field)}: {problem}; {allowed}")


class ImageError(HotswapError, ValueError):
    """An input picture or mask that cannot be used."""


class MissingFileError(HotswapError, FileNotFoundError):
    """A model file that is not on this machine.

    Attributes:
        filename: name of the missing file.
    """

    def __init__(self, filename: str, message: str) -> None:
        self.filename = filename
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0])


def shorten(value: object, limit: int = _SHOWN) -> str:
    """Return value as it would stand in JSON or Python, cut to limit characters on one line."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
