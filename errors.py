"""Every error that the pack raises on purpose: one tree.

HotswapError
├── RequestError (ValueError)             a field of a request is missing, unknown or out of range
├── ImageError (ValueError)               an input picture or mask that cannot be used
├── CheckpointError (ValueError)          a model file that cannot be used
│   ├── NotFluxError                      it holds another model, or lacks parts of FLUX.1
│   └── MissingFileError (FileNotFoundError)   it has to be put somewhere first
├── LoraError (ValueError)                a LoRA file that cannot be applied to this model
├── InputError (ValueError)               something of another kind is connected to a node
├── SaveError (ValueError)                a picture that cannot be saved as asked
├── CallError (ValueError)                a call of the API that is refused
├── DrawError                             a prediction of the API that cannot be drawn
├── WorkerLostError                       the ComfyUI that drew it is gone; another can draw it
├── SafetyError (ValueError)              pictures that could not be checked; none gets through
│   ├── UnsafeError                       every picture was judged unsafe and was to be dropped
│   └── WeightsError                      a file of a checker is missing, or is another one
└── FetchError                            a file that cannot be had
    ├── SourceError (ValueError)          the text names no source, or one that is not taken
    │   └── NotThisWayError               the same, before the text is named
    ├── NotFoundError (LookupError)       the source has no such model, version or file
    ├── NotAuthorisedError                the source wants a token, or another one
    ├── RefusedError                      our own rules say no: address, certificate, size
    ├── OfflineError                      the source cannot be reached or keeps failing
    ├── BadFileError (ValueError)         what arrived is not the file that was promised
    ├── NoRoomError                       the disk is full, or would be
    ├── StoreError                        the folder or its lock cannot be used
    ├── SettingsError (ValueError)        a variable or the file of tokens cannot be used
    └── CancelledError                    the caller asked to stop

Each message names the field or file, what is wrong with it, and what to do. No message ever holds a
token, a password or the query of an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from .texts import one_line

_SHOWN: Final = 60
"""Most characters of a value that a message shows."""

MAX_MESSAGE: Final = 2000
"""Letters of the longest message."""
MAX_LIST: Final = 2000
"""Letters of all lines that a message lists; an eighth of it in one."""


class HotswapError(Exception):
    """Root of everything this pack raises on purpose."""

    def at(self, field: str) -> None:
        """Put the field that it belongs to before the message."""
        self.args = (f"{field}: {self}", *self.args[1:])


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


class CheckpointError(HotswapError, ValueError):
    """A model file that cannot be used."""


class NotFluxError(CheckpointError):
    """The tensors are those of another model, or some of FLUX.1 are missing."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A model file that is not on this machine.

    Attributes:
        filename: name of the missing file.
    """

    def __init__(self, filename: str, message: str) -> None:
        self.filename = filename
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.args[0])


class LoraError(HotswapError, ValueError):
    """A LoRA file that cannot be applied."""


class InputError(HotswapError, ValueError):
    """What is connected to a node is of another kind than it needs."""


class SaveError(HotswapError, ValueError):
    """A picture cannot be saved as asked."""


class CallError(HotswapError, ValueError):
    """A call of the API that is refused. Nothing of its values is in the message.

    Attributes:
        status: the HTTP status of the answer.
        title: a few words for it.
        fields: what is wrong in which field of the input, where it is that.
        retry_after: seconds after which it can be made again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        title: str = "",
        fields: Sequence[tuple[str, str]] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.fields = tuple(fields)
        self.retry_after = retry_after


class DrawError(HotswapError):
    """A prediction of the API cannot be drawn, by this ComfyUI or by another."""


class WorkerLostError(HotswapError):
    """The ComfyUI that drew a prediction is gone, or gives no sign of life."""


class SafetyError(HotswapError, ValueError):
    """Pictures could not be checked, or none passed. Nothing unchecked gets through."""


class UnsafeError(SafetyError):
    """Every picture was judged unsafe and was to be dropped.

    Attributes:
        report: the verdicts, as text.
    """

    def __init__(self, count: int, report: str) -> None:
        self.report = report
        subject = "The picture was" if count == 1 else f"All {count} pictures were"
        super().__init__(
            f"{subject} judged unsafe and left out, so there is no output. Change the prompt, or "
            f"run again with another seed.\n{report}"
        )


class WeightsError(SafetyError):
    """A weight file of a checker is missing, or is not the pinned one."""


class FetchError(HotswapError):
    """Base of all errors of this package; catching it catches every expected failure.

    Args:
        message: What is wrong, on one line.
        choices: What to name instead, each on a line of its own after it.
    """

    def __init__(self, message: str, *, choices: Sequence[str] = ()) -> None:
        # Servers, files and users put their own words into it.
        super().__init__("\n".join([one_line(message, MAX_MESSAGE), *_listed(choices)]))


class SourceError(FetchError, ValueError):
    """The text names no source we know.

    Attributes:
        text: What was given, cut short and without secrets.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class NotThisWayError(SourceError):
    """What is wrong with a text that names a source; `parse` adds the text."""


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


def shorten(value: object) -> str:
    """Return value as it would stand in JSON or Python, on one line that is not too long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _listed(choices: Sequence[str]) -> Iterator[str]:
    left = MAX_LIST
    for number, choice in enumerate(choices):
        line = f"  {one_line(choice, MAX_LIST // 8)}"
        left -= len(line) + 1
        if left < 0:
            yield f"  and {len(choices) - number} more"
            return
        yield line
