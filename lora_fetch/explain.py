"""What a service's refusal means, in words that help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import FetchError, NotAuthorisedError, NotFoundError
from ..files.answer import Answer
from ..files.explain import GONE, Asked, host_of
from ..files.net import UNAUTHORISED
from ..files.settings import Settings
from ..files.words import said
from .shares import page_hint
from .source import CivitAI, HuggingFace, Replicate, Source

__all__ = ["asked"]

_LOGIN = re.compile(r"/login/?$")
_PAGE = re.compile(r"/(?:models|model-versions|join|pricing|purchase)(?:/|$)")


def asked(source: Source) -> Asked:
    """What a source is called in messages, and what its service's refusals mean."""
    if isinstance(source, CivitAI):
        return _OfCivitAI(source.shown(), source)
    if isinstance(source, HuggingFace):
        return _OfHub(source.shown(), source)
    if isinstance(source, Replicate):
        return _OfReplicate(source.shown(), source)
    return _OfLink(source.shown())


@dataclass(frozen=True)
class _OfLink(Asked):
    def page_hint(self, _url: str) -> str:
        return page_hint(_url)


@dataclass(frozen=True)
class _OfHub(_OfLink):
    source: HuggingFace

    def withheld(self, answer: Answer, settings: Settings) -> FetchError:
        """Where the hub itself speaks, from another of its addresses, its refusal counts."""
        if answer.header("X-Error-Code"):
            return self.failure(answer, settings)
        return super().withheld(answer, settings)

    def refused(self, answer: Answer, words: str) -> FetchError:
        return _hub(self.source, answer, words)


@dataclass(frozen=True)
class _OfCivitAI(_OfLink):
    source: CivitAI

    def failure(self, answer: Answer, settings: Settings) -> FetchError:
        if _civitai_page(answer):
            return _civitai(self.source, answer, said(answer, settings.tokens))
        return super().failure(answer, settings)

    def withheld(self, answer: Answer, settings: Settings) -> FetchError:
        """Where CivitAI itself speaks, from another of its addresses, its refusal counts."""
        speaks = "json" in answer.header("Content-Type") or answer.header("X-Error-Code")
        if speaks or _civitai_page(answer):
            return self.failure(answer, settings)
        return super().withheld(answer, settings)

    def page(self, answer: Answer) -> FetchError:
        if _civitai_page(answer) == "early":
            return _early(self.source, answer, "")
        return _login(self.source, answer, f"{host_of(answer)} shows its page for that")

    def refused(self, answer: Answer, words: str) -> FetchError:
        return _civitai(self.source, answer, words)


@dataclass(frozen=True)
class _OfReplicate(_OfLink):
    source: Replicate

    def refused(self, answer: Answer, words: str) -> FetchError:
        return _replicate(self.source, answer.status, words)


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
    if code == "RepoNotFound" or status in GONE:
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
            f"unset HF_ENDPOINT, whose mirror leads to {host_of(answer)}: your HF_TOKEN goes to "
            "the mirror alone"
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
    if status in GONE or status == 400:
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
    host = host_of(answer)
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
    if status in GONE:
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
