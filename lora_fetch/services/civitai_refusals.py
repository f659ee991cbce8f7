"""What CivitAI's refusals mean, in its answers and in the pages that it leads to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import FetchError, NotAuthorisedError, NotFoundError
from ...files.answer import Answer, host_of
from ...files.explain import GONE
from ...files.net import UNAUTHORISED
from ...files.settings import Settings
from ...files.words import said
from .link import AskedLink

_LOGIN = re.compile(r"/login/?$")
_PAGE = re.compile(r"/(?:models|model-versions|join|pricing|purchase)(?:/|$)")


@dataclass(frozen=True)
class AskedCivitAI(AskedLink):
    """What a model of CivitAI is called in messages, and what its refusals mean.

    Attributes:
        model: its number; None if only a version is named.
    """

    model: int | None

    def failure(self, answer: Answer, settings: Settings) -> FetchError:
        """What any other answer than the file means; pages of its own are refusals."""
        if _page_of(answer):
            return self.refused(answer, said(answer, settings.tokens))
        return super().failure(answer, settings)

    def withheld(self, answer: Answer, settings: Settings) -> FetchError:
        """Where CivitAI itself speaks, from another of its addresses, its refusal counts."""
        speaks = "json" in answer.header("Content-Type") or answer.header("X-Error-Code")
        if speaks or _page_of(answer):
            return self.failure(answer, settings)
        return super().withheld(answer, settings)

    def page(self, answer: Answer) -> FetchError:
        """What it means that a web page came in place of the file."""
        if _page_of(answer) == "early":
            return self._early(answer, "")
        return self._login(answer, f"{host_of(answer.url)} shows its page for that")

    def refused(self, answer: Answer, words: str) -> FetchError:
        """What a refusal means, by its status, its words and where it led."""
        shown, status = self.shown, answer.status
        if "early access" in words.lower() or _page_of(answer) == "early":
            return self._early(answer, f" (HTTP {status}{words})")
        if _page_of(answer) == "login":
            return self._login(answer, f"HTTP {status}{words}")
        if status in GONE or status == 400:
            return NotFoundError(
                f"{shown}: CivitAI has no such model, version or file (HTTP {status}{words}). "
                "Check the numbers; where CivitAI is restricted it hides models, too.",
                status=status,
            )
        if "disabled" in words.lower():
            return NotAuthorisedError(
                f"{shown}: its creator disabled downloads{words}. Ask them for the file, or take "
                "another LoRA.",
                status=status,
            )
        if status == UNAUTHORISED:
            return self._login(answer, f"HTTP {status}{words}")
        return NotAuthorisedError(
            f"{shown}: CivitAI refuses, as for early access that was not bought (HTTP "
            f"{status}{words}). Open its page with the account of your CIVITAI_API_TOKEN.",
            status=status,
        )

    def _early(self, answer: Answer, words: str) -> FetchError:
        return NotAuthorisedError(
            f"{self.shown} is in early access{words}, for those who bought it. Buy it on its page "
            "with the account of your CIVITAI_API_TOKEN, wait until it is free, or name an older "
            f"version: civitai:{self.model or '<model>'}@<version>.",
            status=answer.status,
            early_access=True,
        )

    def _login(self, answer: Answer, words: str) -> FetchError:
        host = host_of(answer.url)
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
            f"{self.shown}: CivitAI wants you to be logged in ({words}). {remedy}",
            status=answer.status,
        )


def _page_of(answer: Answer) -> str:
    """Whether a redirect led to the page of CivitAI's for a login, or for early access."""
    html = "html" in answer.header("Content-Type")
    for url in answer.trail[1:]:
        parts = urlsplit(url)
        if "early-access" in parts.query or (html and _PAGE.match(parts.path)):
            return "early"
        if "download-auth" in parts.query or _LOGIN.search(parts.path):
            return "login"
    return ""
