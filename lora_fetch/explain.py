"""What a server's refusal means, in words that help: one place for all sources."""

from __future__ import annotations

import email.utils
import json
from typing import Any, cast
from urllib.parse import urlsplit

from .errors import FetchError, NotAuthorisedError, NotFoundError, OfflineError
from .net import Answer
from .source import CivitAI, HuggingFace, Replicate, Source
from .tokens import Tokens

__all__ = ["failure", "retry_after"]

_BUSY = {408, 425, 429}
_GONE = {404, 410, 451}


def failure(source: Source, answer: Answer, *, tokens: Tokens, now: float) -> FetchError:
    """Turn an answer that is no success into the error to raise.

    Args:
        source: What was asked for.
        answer: The server's answer; the start of its body is read.
        tokens: The user's tokens, to know whether one was sent and to keep them out of the text.
        now: Seconds since 1970, for a Retry-After that is a date.
    """
    status = answer.status
    said = _said(answer, tokens)
    if status in _BUSY or status >= 500:
        return OfflineError(
            f"{source.shown()}: {_host(answer)} is busy or failing (HTTP {status}{said}). "
            "Try again later.",
            status=status,
            retry_after=retry_after(answer.header("Retry-After"), now),
        )
    token = tokens.for_url(answer.url) is not None
    if isinstance(source, HuggingFace):
        return _hub(source, answer, said, token=token)
    if isinstance(source, CivitAI):
        return _civitai(source, answer, said, token=token)
    if isinstance(source, Replicate):
        return _replicate(source, status, said)
    return _other(source, answer, said)


def retry_after(text: str, now: float) -> float | None:
    """Seconds to wait from a Retry-After header, which is a count or a date."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _hub(source: HuggingFace, answer: Answer, said: str, *, token: bool) -> FetchError:
    shown, status = source.shown(), answer.status
    page = f"https://huggingface.co/{source.repo}"
    code = answer.header("X-Error-Code")
    if code == "GatedRepo":
        remedy = f"Accept its terms at {page}" + (
            " with the account of your HF_TOKEN." if token else ", then set HF_TOKEN."
        )
        return NotAuthorisedError(f"{shown} is gated. {remedy}", status=status)
    if code == "RevisionNotFound":
        return NotFoundError(
            f"{shown}: the repository has no revision {source.revision!r}. See {page}/commits.",
            status=status,
        )
    if code == "EntryNotFound":
        return NotFoundError(
            f"{shown}: the repository has no file {source.path!r}. See {page}/tree/main.",
            status=status,
        )
    if code == "RepoNotFound" or status in _GONE:
        remedy = "check the name" if token else "check the name, or set HF_TOKEN if it is private"
        return NotFoundError(
            f"{shown}: Hugging Face has no such repository that you may see; {remedy}.",
            status=status,
        )
    remedy = "Your HF_TOKEN does not reach it." if token else "Set HF_TOKEN."
    return NotAuthorisedError(
        f"{shown}: Hugging Face refuses (HTTP {status}{said}). {remedy}", status=status
    )


def _civitai(source: CivitAI, answer: Answer, said: str, *, token: bool) -> FetchError:
    shown, status = source.shown(), answer.status
    if status in _GONE or status == 400:
        return NotFoundError(
            f"{shown}: CivitAI has no such model, version or file (HTTP {status}{said}). Check "
            "the numbers; where CivitAI is restricted it hides models, too.",
            status=status,
        )
    if "disabled" in said.lower():
        return NotAuthorisedError(f"{shown}: its creator disabled downloads{said}.", status=status)
    if status == 403:
        return NotAuthorisedError(
            f"{shown}: CivitAI refuses, as for early access that was not bought (HTTP 403{said}). "
            "Open its page with the account of your CIVITAI_API_TOKEN.",
            status=status,
        )
    remedy = (
        "Your CIVITAI_API_TOKEN is not accepted: make a new one."
        if token
        else "Make a key in your CivitAI account settings and set CIVITAI_API_TOKEN."
    )
    return NotAuthorisedError(
        f"{shown}: CivitAI wants you to be logged in (HTTP {status}{said}). {remedy}",
        status=status,
    )


def _replicate(source: Replicate, status: int, said: str) -> FetchError:
    shown = source.shown()
    if status in _GONE:
        return NotFoundError(
            f"{shown}: Replicate has no public weights of that name (HTTP {status}{said}). Check "
            f"the name. For a repository of Hugging Face write hf:{source.owner}/{source.name}",
            status=status,
        )
    return NotAuthorisedError(
        f"{shown}: its weights are not public on Replicate (HTTP {status}{said}). Download them "
        "from the training's page into your loras folder and give the file's name.",
        status=status,
    )


def _other(source: Source, answer: Answer, said: str) -> FetchError:
    shown, status = source.shown(), answer.status
    if status in _GONE:
        return NotFoundError(
            f"{shown}: {_host(answer)} has nothing there (HTTP {status}{said}). Check the address.",
            status=status,
        )
    return NotAuthorisedError(
        f"{shown}: {_host(answer)} refuses (HTTP {status}{said}). Open the address in a browser; "
        "if it works only after a login, download the file into your loras folder.",
        status=status,
    )


def _host(answer: Answer) -> str:
    return urlsplit(answer.url).hostname or "the server"


def _said(answer: Answer, tokens: Tokens) -> str:
    """The server's own words, when it sent some: short, one line, without tokens."""
    words = answer.header("X-Error-Message") or _message(answer)
    words = "".join(c for c in tokens.scrub(" ".join(words.split())) if c.isprintable())
    return f": {words[:200]}" if words else ""


def _message(answer: Answer) -> str:
    if "json" not in answer.header("Content-Type") or answer.encoded:
        return ""
    try:
        document: object = json.loads(answer.text())
    except (ValueError, RecursionError, OfflineError):
        return ""
    if not isinstance(document, dict):
        return ""
    table = cast("dict[str, Any]", document)
    found = (table.get(key) for key in ("message", "error", "detail", "title"))
    return next((text for text in found if isinstance(text, str)), "")
