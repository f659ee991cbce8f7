"""Links that file hosts hand out for people, turned into the address of the bytes."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from ...errors import NotThisWayError
from ..source import Address

__all__ = ["DRIVE", "direct", "page_hint"]

DRIVE = "drive.usercontent.google.com"
"""Serves files under addresses that do not name them."""

_DRIVE_FILE = re.compile(r"/file/(?:u/\d+/)?d/([A-Za-z0-9_-]+)(?:/.*)?")
_DRIVE_ID = re.compile(r"[A-Za-z0-9_-]+")
_GITHUB_FILE = re.compile(r"(/[^/]+/[^/]+)/blob/(.+)")


def direct(address: Address) -> Address:
    """Find the address of the bytes behind a share link.

    Returns:
        The address of the bytes; for a host that is not known here, the address as it is.

    Raises:
        NotThisWayError: the link shares a folder.
    """
    site = address.site
    if site in ("drive.google.com", "docs.google.com", DRIVE):
        return _drive(address)
    if site == "dropbox.com":
        return _dropbox(address)
    match = _GITHUB_FILE.fullmatch(address.path) if site == "github.com" else None
    if match:
        return _at(address, site, f"{match[1]}/raw/{match[2]}", address.query)
    return address


def _at(address: Address, host: str, path: str, query: str) -> Address:
    return replace(address, scheme="https", host=host, port=None, path=path, query=query)


def page_hint(url: str) -> str:
    """What to do about an address that shows a page instead of its file."""
    parts = urlsplit(url)
    if "dl=0" in parts.query.split("&"):
        return "Write dl=1 in place of dl=0 at the end of the address."
    if parts.hostname == DRIVE:
        return (
            "Share the file with everyone who has the link. If it is shared, Google limits its "
            "downloads for now: put the file into your loras folder."
        )
    if "/blob/" in parts.path:
        return "Write /resolve/ (or on git hosts /raw/) in place of /blob/ in the address."
    return (
        "Copy the address of the download itself, not of a page; if it works only after a login, "
        "download the file into your loras folder."
    )


def _drive(address: Address) -> Address:
    """Google Drive; ``confirm`` skips its page about files too large to scan."""
    values = dict(parse_qsl(address.query))
    match = _DRIVE_FILE.fullmatch(address.path)
    number = match[1] if match else values.get("id", "")
    if not _DRIVE_ID.fullmatch(number) or "/folders/" in address.path:
        raise NotThisWayError(
            "this link of Google Drive names no file. Share the file itself: its link looks like "
            "https://drive.google.com/file/d/<id>/view"
        )
    pairs = {"id": number, "export": "download", "confirm": "t"}
    if "resourcekey" in values:
        pairs["resourcekey"] = values["resourcekey"]
    return _at(address, DRIVE, "/download", urlencode(pairs))


def _dropbox(address: Address) -> Address:
    """Dropbox shows a page about the file unless it is asked for a download."""
    path = address.path
    if path.startswith(("/scl/fo/", "/sh/")) and not path.lower().endswith(".safetensors"):
        raise NotThisWayError(
            "this link of Dropbox shares a folder. Open the file in it and copy the file's own link"
        )
    pairs = [pair for pair in address.query.rstrip("/").split("&") if pair]
    kept = [pair for pair in pairs if pair.partition("=")[0] not in ("dl", "raw")]
    return _at(address, "www.dropbox.com", path, "&".join([*kept, "dl=1"]))
