"""Everything that can go wrong between a line of text and a LoRA on disk.

FetchError
├── SourceError (ValueError)        the text names no source, or names one we do not take
├── NotFoundError (LookupError)     the source has no such model, version or file
├── NotAuthorisedError              the source wants a token, or another one
├── RefusedError                    our own rules say no: address, certificate, size, scan result
├── OfflineError                    the source cannot be reached or keeps failing
├── BadFileError (ValueError)       what arrived is not the LoRA that was promised
├── NoRoomError                     the disk is full, or would be
├── StoreError                      the folder or its lock cannot be used
├── SettingsError (ValueError)      an environment variable or the token file cannot be used
└── CancelledError                  the caller asked to stop

Every message names the source or the file, says what is wrong and what to do. No message ever holds
a token, a password or the query of an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .texts import one_line

__all__ = [
    "BadFileError",
    "CancelledError",
    "FetchError",
    "NoRoomError",
    "NotAuthorisedError",
    "NotFoundError",
    "OfflineError",
    "RefusedError",
    "SettingsError",
    "SourceError",
    "StoreError",
]

MAX_MESSAGE = 2000
"""Letters of the longest message."""
MAX_LIST = 2000
"""Letters of all lines that a message lists; an eighth of it in one."""


class FetchError(Exception):
    """Base of all errors of this package; catching it catches every expected failure.

    Args:
        message: What is wrong, on one line.
        choices: What to name instead, each on a line of its own after it.
    """

    def __init__(self, message: str, *, choices: Sequence[str] = ()) -> None:
        # Servers, files and users put their own words into it.
        super().__init__("\n".join([one_line(message, MAX_MESSAGE), *_listed(choices)]))


def _listed(choices: Sequence[str]) -> Iterator[str]:
    left = MAX_LIST
    for number, choice in enumerate(choices):
        line = f"  {one_line(choice, MAX_LIST // 8)}"
        left -= len(line) + 1
        if left < 0:
            yield f"  and {len(choices) - number} more"
            return
        yield line


class SourceError(FetchError, ValueError):
    """The text names no source we know.

    Attributes:
        text: What was given, cut short and without secrets.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class StatusError(FetchError):
    """Common part of the errors that stem from an answer of a server.

    Attributes:
        status: The HTTP status, when there was one.
    """

    def __init__(
        self, message: str, *, status: int | None = None, choices: Sequence[str] = ()
    ) -> None:
        super().__init__(message, choices=choices)
        self.status = status


class NotFoundError(StatusError, LookupError):
    """The source was reached, and has no such thing."""


class NotAuthorisedError(StatusError):
    """The source was reached, and does not let us have it.

    Attributes:
        early_access: Others may have it by now, and all later.
    """

    def __init__(
        self, message: str, *, status: int | None = None, early_access: bool = False
    ) -> None:
        super().__init__(message, status=status)
        self.early_access = early_access


class RefusedError(FetchError):
    """Our own safety rules forbid it."""


class OfflineError(StatusError):
    """The source cannot be reached, or answers with failures.

    Attributes:
        retry_after: Seconds the server asked us to wait.
        transient: Whether asking again soon can help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        transient: bool = True,
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after
        self.transient = transient


class BadFileError(FetchError, ValueError):
    """The bytes are not a sound LoRA file, or not the one that was promised."""


class NoRoomError(FetchError):
    """The disk has no room for the file.

    Attributes:
        needed: Bytes that were needed, when known.
        free: Bytes that were free, when known.
    """

    def __init__(self, message: str, *, needed: int | None = None, free: int | None = None) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class StoreError(FetchError):
    """The store's folder, index or lock cannot be used."""


class SettingsError(FetchError, ValueError):
    """An environment variable, or the private file of tokens, holds what we cannot use."""


class CancelledError(FetchError):
    """The caller's ``cancelled`` said so; what was fetched so far is kept for a later resume."""
