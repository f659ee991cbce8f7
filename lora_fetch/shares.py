"""Links that file hosts hand out for people, turned into the address of the bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from .sites import NotThisWayError

__all__ = ["Address", "direct", "page_hint"]

_DRIVE = "drive.usercontent.google.com"
_DRIVE_FILE = re.compile(r"/file/(?:u/\d+/)?d/([A-Za-z0-9_-]+)(?:/.*)?")
_DRIVE_ID = re.compile(r"[A-Za-z0-9_-]+")
_GITHUB_FILE = re.compile(r"(/[^/]+/[^/]+)/blob/(.+)")


@dataclass(frozen=True)
class Address:
    """Host, path and query of an https address.

    Attributes:
        nameless: The host serves files under addresses that do not name them.
    """

    host: str
    path: str
    query: str
    nameless: bool = False


def direct(host: str, path: str, query: str) -> Address | None:
    """Find the address of the bytes behind a share link.

    Args:
        host: In lower case.
        path: Of the address.
        query: Of the address.

    Returns:
        The address of the bytes; None for a host that is not known here.

    Raises:
        NotThisWayError: the link shares a folder.
    """
    site = host.removeprefix("www.")
    if site in ("drive.google.com", "docs.google.com", _DRIVE):
        return _drive(path, query)
    if site == "dropbox.com":
        return _dropbox(path, query)
    match = _GITHUB_FILE.fullmatch(path) if site == "github.com" else None
    return Address(site, f"{match[1]}/raw/{match[2]}", query) if match else None


def page_hint(url: str) -> str:
    """What to do about an address that shows a page instead of its file."""
    parts = urlsplit(url)
    if "dl=0" in parts.query.split("&"):
        return "Write dl=1 in place of dl=0 at the end of the address."
    if parts.hostname == _DRIVE:
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


def _drive(path: str, query: str) -> Address:
    """Google Drive; ``confirm`` skips its page about files too large to scan."""
    values = dict(parse_qsl(query))
    match = _DRIVE_FILE.fullmatch(path)
    number = match[1] if match else values.get("id", "")
    if not _DRIVE_ID.fullmatch(number) or "/folders/" in path:
        raise NotThisWayError(
            "this link of Google Drive names no file. Share the file itself: its link looks like "
            "https://drive.google.com/file/d/<id>/view"
        )
    pairs = {"id": number, "export": "download", "confirm": "t"}
    if "resourcekey" in values:
        pairs["resourcekey"] = values["resourcekey"]
    return Address(_DRIVE, "/download", urlencode(pairs), nameless=True)


def _dropbox(path: str, query: str) -> Address:
    """Dropbox shows a page about the file unless it is asked for a download."""
    if path.startswith(("/scl/fo/", "/sh/")) and not path.lower().endswith(".safetensors"):
        raise NotThisWayError(
            "this link of Dropbox shares a folder. Open the file in it and copy the file's own link"
        )
    pairs = [pair for pair in query.rstrip("/").split("&") if pair]
    kept = [pair for pair in pairs if pair.partition("=")[0] not in ("dl", "raw")]
    return Address("www.dropbox.com", path, "&".join([*kept, "dl=1"]))
