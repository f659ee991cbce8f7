"""The Markdown pages, as the tests read them. Standard library only."""

from __future__ import annotations

import re

from .environment import ROOT


def page(name: str) -> str:
    """Return the text of a page by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def code_words(text: str) -> set[str]:
    """Return what stands in backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def section(text: str, heading: str) -> str:
    """Return a section of a Markdown text, without the sections below it."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert found, f"no section {heading}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each row of the tables in a Markdown text, their heads included."""
    return [cell.strip() for cell in re.findall(r"^\|(.*?)\|", text, re.M)]
