"""What a server's refusal means, in words that help: here, what holds for any web server."""

from __future__ import annotations

import email.utils
from dataclasses import dataclass
from typing import Final

from ..errors import BadFileError, FetchError, NotAuthorisedError, NotFoundError, OfflineError
from .answer import Answer, host_of
from .net import BUSY
from .settings import Settings
from .words import said

__all__ = ["GONE", "Asked", "retry_after"]

GONE: Final = frozenset((404, 410, 451))


@dataclass(frozen=True)
class Asked:
    """What a transfer asks for. A service that says more than any web server has its own kind.

    Attributes:
        shown: Its spelling for messages, without secrets.
    """

    shown: str

    def failure(self, answer: Answer, settings: Settings) -> FetchError:
        """Turn an answer that is no success into the error to raise.

        Args:
            answer: The server's answer; the start of its body is read.
            settings: The tokens, to keep them out of the text, and the clock.
        """
        words = said(answer, settings.tokens)
        if answer.status in BUSY or answer.status >= 500:
            return OfflineError(
                f"{self.shown}: {host_of(answer.url)} is busy or failing (HTTP "
                f"{answer.status}{words}). Try again later.",
                status=answer.status,
                retry_after=retry_after(answer.header("Retry-After"), settings.clock()),
            )
        return self.refused(answer, words)

    def withheld(self, answer: Answer, settings: Settings) -> FetchError:
        """What it means that the place a service sent us to does not send the file.

        A file server's signed address may have run out, and a second try brings a fresh one.
        """
        return OfflineError(
            f"{self.shown}: the file server {host_of(answer.url)} did not send the file (HTTP "
            f"{answer.status}{said(answer, settings.tokens)}). Try again later.",
            status=answer.status,
        )

    def page(self, answer: Answer) -> FetchError:
        """What it means that a web page came in place of the file."""
        hint = self.page_hint(answer.url)
        return BadFileError(f"{self.shown} cannot be used: it is a web page, not a file. {hint}")

    def page_hint(self, _url: str) -> str:
        """What to do where an address shows a web page."""
        return (
            "Copy the address of the download itself, not of a page; if it works only after a "
            "login, download the file yourself."
        )

    def refused(self, answer: Answer, words: str) -> FetchError:
        """What a refusal means, with what the server says of it."""
        status = answer.status
        if status in GONE:
            return NotFoundError(
                f"{self.shown}: {host_of(answer.url)} has nothing there (HTTP {status}{words}). "
                "Check the address.",
                status=status,
            )
        remedy = (
            "Open the address in a browser; if it works only after a login, download the file into "
            "your loras folder."
        )
        if "expire" in words.lower():
            remedy = (
                "The address is signed and has run out: copy a fresh one from where you got it."
            )
        elif answer.auth == "sent":
            remedy = "Your token for this host is not accepted, or does not reach it."
        return NotAuthorisedError(
            f"{self.shown}: {host_of(answer.url)} refuses (HTTP {status}{words}). {remedy}",
            status=status,
        )


def retry_after(text: str, now: float) -> float | None:
    """Seconds to wait from a Retry-After header, which is a count or a date."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
