"""What clings to a source when people copy it, and how a text is shown back without its secrets."""

from __future__ import annotations

import re

__all__ = ["displayed", "unwrapped", "without_tokens"]

SHOWN = 120
"""Most signs of a text in a message."""
LAYERS = 4
"""So many quotes within quotes are taken off; a text can be all brackets."""

_PAIRS = {'"': '"', "'": "'", "`": "`", "<": ">", "(": ")", "[": "]", "{": "}"} | {
    "\u201c": "\u201d",  # the curved quotes of text programs
    "\u201d": "\u201d",
    "\u201e": "\u201c",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u2039": "\u203a",
}
_LONE = '"`<>\u201c\u201d\u201e\u00ab\u00bb'
"""Signs that no source begins or ends with, so that half of a pair can go, too."""
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_MARKDOWN = re.compile(r"!?\[[^\[\]]*\]\(\s*([^\s()]+)\s*\)")
_ACCOUNT = re.compile(r"//[^/]*@|^[^/@:]+:[^/@]*@(?=[^/]*[.])")
_TOKEN = re.compile(
    r"\b(?:hf|r8)_[A-Za-z0-9]{4,}"
    r"|\b(?:[a-z_]*token|api[_-]?key|authorization)\s*[=:]\s*(?:bearer\s+)?[^\s/?#&'\"]+"
    r"|\bbearer\s+[^\s/?#&'\"]+",
    re.IGNORECASE,
)


def unwrapped(text: str) -> str:
    """Take off quotes, brackets and signs that cannot be seen, as chats and JSON put around."""
    for _ in range(LAYERS):
        text = text.strip().strip(_UNSEEN)
        link = _MARKDOWN.fullmatch(text)
        if link is not None:
            text = link[1]
        listed = text.rstrip(",;")  # an item of a list: the comma is after the quote
        if len(listed) > 1 and _PAIRS.get(listed[0]) == listed[-1]:
            text = listed[1:-1]
    lone = [sign for sign in _LONE if text.count(sign) == 1]
    return text.strip("".join(lone)).strip() if lone else text


def displayed(text: str) -> str:
    """A text for a message: short, without a query, an account or what looks like a token."""
    text = re.split(r"[?#&]", text, maxsplit=1)[0]
    text = without_tokens(_ACCOUNT.sub("//***@", text))
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def without_tokens(text: str) -> str:
    """Blank what looks like a token."""
    return _TOKEN.sub("***", text)
