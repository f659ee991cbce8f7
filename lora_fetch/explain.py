"""What a server's refusal means, in words that help: one place for all sources."""

from __future__ import annotations

import email.utils
import re
from urllib.parse import urlsplit

from .answer import Answer
from .errors import BadFileError, FetchError, NotAuthorisedError, NotFoundError, OfflineError
from .net import BUSY, UNAUTHORISED
from .settings import Settings
from .shares import page_hint
from .source import CivitAI, HuggingFace, Replicate, Source
from .words import said

__all__ = ["failure", "page", "retry_after", "withheld"]

_GONE = {404, 410, 451}
_LOGIN = re.compile(r"/login/?$")
_PAGE = re.compile(r"/(?:models|model-versions|join|pricing|purchase)(?:/|$)")


def failure(source: Source, answer: Answer, settings: Settings) -> FetchError:
    """Turn an answer that is no success into the error to raise.

    Args:
        source: What was asked for.
        answer: The server's answer; the start of its body is read.
        settings: The tokens, to keep them out of the text, the services and the clock.
    """
    status = answer.status
    words = said(answer, settings.tokens)
    if isinstance(source, CivitAI) and _civitai_page(answer):
        return _civitai(source, answer, words)
    if status in BUSY or status >= 500:
        return OfflineError(
            f"{source.shown()}: {_host(answer)} is busy or failing (HTTP {status}{words}). "
            "Try again later.",
            status=status,
            retry_after=retry_after(answer.header("Retry-After"), settings.clock()),
        )
    if isinstance(source, HuggingFace):
        return _hub(source, answer, words)
    if isinstance(source, CivitAI):
        return _civitai(source, answer, words)
    if isinstance(source, Replicate):
        return _replicate(source, status, words)
    return _other(source, answer, words)


def withheld(source: Source, answer: Answer, settings: Settings) -> FetchError:
    """What it means that the place a service sent us to does not send the file.

    A file server's signed address may have run out, and a second try brings a fresh one. Where the
    service itself speaks, from another of its addresses, its refusal counts.
    """
    speaks = "json" in answer.header("Content-Type") or answer.header("X-Error-Code")
    if isinstance(source, CivitAI) and (speaks or _civitai_page(answer)):
        return failure(source, answer, settings)
    if isinstance(source, HuggingFace) and answer.header("X-Error-Code"):
        return failure(source, answer, settings)
    return OfflineError(
        f"{source.shown()}: the file server {_host(answer)} did not send the file (HTTP "
        f"{answer.status}{said(answer, settings.tokens)}). Try again later.",
        status=answer.status,
    )


def page(source: Source, answer: Answer) -> FetchError:
    """What it means that a web page came in place of the file."""
    if isinstance(source, CivitAI):
        if _civitai_page(answer) == "early":
            return _early(source, answer, "")
        return _login(source, answer, f"{_host(answer)} shows its page for that")
    return BadFileError(
        f"{source.shown()} cannot be used: it is a web page, not a file. {page_hint(answer.url)}"
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


def _hub(source: HuggingFace, answer: Answer, words: str) -> FetchError:
    shown, status = source.shown(), answer.status
    page = f"https://huggingface.co/{source.repo}"
    code = answer.header("X-Error-Code")
    sent = answer.auth == "sent"
    if code == "GatedRepo":
        remedy = f"Accept its terms at {page}" + (
            " with the account of your HF_TOKEN." if sent else f", then {_set_hub(answer)}."
        )
        return NotAuthorisedError(f"{shown} is gated. {remedy}", status=status)
    if code == "RevisionNotFound":
        return NotFoundError(
            f"{shown}: the repository has no revision {source.revision!r}. See {page}/commits.",
            status=status,
        )
    if code == "EntryNotFound":
        tree = f"{page}/tree/{source.revision or 'main'}"
        return NotFoundError(
            f"{shown}: the repository has no file {source.path!r}. See {tree}.", status=status
        )
    if code == "RepoNotFound" or status in _GONE:
        remedy = "check the name"
        if not sent:
            remedy += f", or {_set_hub(answer)} if it is private"
        return NotFoundError(
            f"{shown}: Hugging Face has no such repository that you may see; {remedy}.",
            status=status,
        )
    if sent and status == UNAUTHORISED:
        remedy = (
            "Your HF_TOKEN is not accepted, and without it the file is not public: make a new one "
            "at https://huggingface.co/settings/tokens, and check the name."
        )
    else:
        remedy = "Your HF_TOKEN does not reach it." if sent else f"{_set_hub(answer)}."
    remedy = remedy[:1].upper() + remedy[1:]
    return NotAuthorisedError(
        f"{shown}: Hugging Face refuses (HTTP {status}{words}). {remedy}", status=status
    )


def _set_hub(answer: Answer) -> str:
    if answer.auth == "kept":
        return (
            f"unset HF_ENDPOINT, whose mirror leads to {_host(answer)}: your HF_TOKEN goes to the "
            "mirror alone"
        )
    return "set HF_TOKEN" + (
        " to a new token (yours is not accepted)" if answer.auth == "refused" else ""
    )


def _civitai(source: CivitAI, answer: Answer, words: str) -> FetchError:
    shown, status = source.shown(), answer.status
    if "early access" in words.lower() or _civitai_page(answer) == "early":
        return _early(source, answer, f" (HTTP {status}{words})")
    if _civitai_page(answer) == "login":
        return _login(source, answer, f"HTTP {status}{words}")
    if status in _GONE or status == 400:
        return NotFoundError(
            f"{shown}: CivitAI has no such model, version or file (HTTP {status}{words}). Check "
            "the numbers; where CivitAI is restricted it hides models, too.",
            status=status,
        )
    if "disabled" in words.lower():
        return NotAuthorisedError(f"{shown}: its creator disabled downloads{words}.", status=status)
    if status == UNAUTHORISED:
        return _login(source, answer, f"HTTP {status}{words}")
    return NotAuthorisedError(
        f"{shown}: CivitAI refuses, as for early access that was not bought (HTTP {status}{words}"
        "). Open its page with the account of your CIVITAI_API_TOKEN.",
        status=status,
    )


def _civitai_page(answer: Answer) -> str:
    """Whether a redirect led to the page of CivitAI's for a login, or for early access."""
    html = "html" in answer.header("Content-Type")
    for url in answer.trail[1:]:
        parts = urlsplit(url)
        if "early-access" in parts.query or (html and _PAGE.match(parts.path)):
            return "early"
        if "download-auth" in parts.query or _LOGIN.search(parts.path):
            return "login"
    return ""


def _early(source: CivitAI, answer: Answer, words: str) -> FetchError:
    return NotAuthorisedError(
        f"{source.shown()} is in early access{words}, for those who bought it. Buy it on its page "
        "with the account of your CIVITAI_API_TOKEN, wait until it is free, or name an older "
        f"version: civitai:{source.model or '<model>'}@<version>.",
        status=answer.status,
        early_access=True,
    )


def _login(source: CivitAI, answer: Answer, words: str) -> FetchError:
    host = _host(answer)
    remedy = {
        "none": "Make a key in your CivitAI account settings and set CIVITAI_API_TOKEN.",
        "sent": "Your CIVITAI_API_TOKEN is not accepted: make a new one.",
        "refused": "Your CIVITAI_API_TOKEN is not accepted: make a new one.",
        "kept": (
            f"Your CIVITAI_API_TOKEN is not sent to {host}. If it has run out, make a new one; "
            "else download the file in a browser into your loras folder."
        ),
    }[answer.auth]
    return NotAuthorisedError(
        f"{source.shown()}: CivitAI wants you to be logged in ({words}). {remedy}",
        status=answer.status,
    )


def _replicate(source: Replicate, status: int, words: str) -> FetchError:
    shown = source.shown()
    if status in _GONE:
        return NotFoundError(
            f"{shown}: Replicate has no public weights of that name (HTTP {status}{words}). Check "
            f"the name. For a repository of Hugging Face write hf:{source.owner}/{source.name}",
            status=status,
        )
    return NotAuthorisedError(
        f"{shown}: its weights are not public on Replicate (HTTP {status}{words}). Download them "
        "from the training's page into your loras folder and give the file's name.",
        status=status,
    )


def _other(source: Source, answer: Answer, words: str) -> FetchError:
    shown, status = source.shown(), answer.status
    if status in _GONE:
        return NotFoundError(
            f"{shown}: {_host(answer)} has nothing there (HTTP {status}{words}). Check the "
            "address.",
            status=status,
        )
    remedy = (
        "Open the address in a browser; if it works only after a login, download the file into "
        "your loras folder."
    )
    if "expire" in words.lower():
        remedy = "The address is signed and has run out: copy a fresh one from where you got it."
    elif answer.auth == "sent":
        remedy = "Your token for this host is not accepted, or does not reach it."
    return NotAuthorisedError(
        f"{shown}: {_host(answer)} refuses (HTTP {status}{words}). {remedy}", status=status
    )


def _host(answer: Answer) -> str:
    return urlsplit(answer.url).hostname or "the server"
