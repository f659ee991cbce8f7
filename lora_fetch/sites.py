"""The address forms of Hugging Face, CivitAI and Replicate; `parser` picks the site."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from .source import HUB_TABS, CivitAI, HuggingFace, Replicate

__all__ = ["NotThisWayError", "civitai_page", "civitai_text", "hub", "replicate"]

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,94}")
_VERSION = re.compile(r"[0-9a-fA-F]{6,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_CIVITAI = re.compile(r"([0-9]*)(?:\s*@\s*([0-9]+))?/*(?:[?&](.*))?")
_WANT = re.compile(r"[A-Za-z0-9_.-]{1,32}")

_HUB_FILES = {"resolve", "blob", "raw", "blame", "edit", "delete"}
_HUB_REVISIONS = {*_HUB_FILES, "tree", "commit", "commits", "upload"}
_HUB_PAGES = {
    *("api", "blog", "chat", "collections", "datasets", "docs", "join", "learn", "login"),
    *("models", "new", "organizations", "papers", "posts", "pricing", "settings", "spaces"),
}
_REPLICATE_PAGES = {
    *("account", "blog", "collections", "deployments", "docs", "explore", "p", "pricing"),
    *("signin", "trainings"),
}
_REPLICATE_TABS = {
    *("api", "cost", "examples", "llms.txt", "playground", "readme", "runs", "settings", "train"),
    *("versions", "_weights"),
}
_WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".zip", ".tar", ".tgz")


class NotThisWayError(Exception):
    """What is wrong with a source's text; `parser` turns it into a SourceError with the text."""


def hub(rest: str) -> HuggingFace:
    """Read what follows ``hf:`` or the host: owner/name, then a revision, a folder or a file."""
    segments = [part for part in re.split(r"[?#]", rest, maxsplit=1)[0].split("/") if part]
    if segments[:2] == ["api", "models"]:
        segments = segments[2:]
    if len(segments) < 2 or segments[0].lower() in _HUB_PAGES:
        raise NotThisWayError(
            "no model repository is named. Write hf:owner/name or https://huggingface.co/owner/name"
        )
    owner = segments[0]
    name, _, revision = segments[1].partition("@")
    rest_of = segments[2:]
    verb = ""
    if not revision and rest_of and rest_of[0] in HUB_TABS:
        verb, revision, rest_of = _hub_tab(rest_of)
    if not (_WORD.fullmatch(owner) and _WORD.fullmatch(name)) or ".." in owner + name:
        raise NotThisWayError("a repository is named owner/name, with letters, digits, '-._'")
    path = _clean("/".join(rest_of))
    found = HuggingFace(f"{owner}/{name}", _clean(revision) or None, path or None)
    if (verb in _HUB_FILES and not found.is_file) or (path.lower().endswith(_WEIGHTS)):
        raise NotThisWayError("only a .safetensors file can be taken from a repository")
    return found


def _hub_tab(segments: list[str]) -> tuple[str, str, list[str]]:
    """Split ``resolve/<revision>/<path>``; ``refs/pr/1`` is one revision in three parts."""
    if segments[0] not in _HUB_REVISIONS:
        return segments[0], "", []
    size = 3 if segments[1:2] == ["refs"] else 1
    revision = "/".join(segments[1 : 1 + size])
    return segments[0], revision, segments[1 + size :]


def _clean(text: str) -> str:
    """Undo the percent signs of an address, and refuse what could climb out of a folder."""
    text = "/".join(part for part in unquote(text).split("/") if part not in ("", "."))
    if not text.isprintable() or "\\" in text or ".." in text.split("/"):
        raise NotThisWayError("the path in the repository holds '..' or odd signs")
    return text


def civitai_page(path: str, query: str) -> CivitAI:
    """Read an address on civitai.com."""
    path, _, more = path.partition("&")  # a query whose question mark was lost
    values = _values(f"{query}&{more}")
    segments = [part for part in path.split("/") if part]
    if segments[:3] == ["api", "download", "models"]:
        return _civitai(None, _part(segments, 3), values)
    if segments[:2] == ["api", "v1"]:
        segments = segments[2:]
    if segments[:1] == ["model-versions"]:
        return _civitai(None, _part(segments, 1), values)
    if segments[:1] != ["models"]:
        raise NotThisWayError(
            "this page of civitai.com is not a model. Write https://civitai.com/models/<number> "
            "or civitai:<number>"
        )
    inner = _part(segments, 3) if segments[2:3] == ["model-versions"] else None
    return _civitai(_part(segments, 1), inner or values.get("modelVersionId"), values)


def civitai_text(rest: str) -> CivitAI:
    """Read what follows ``civitai:``: ``model``, ``model@version`` or ``@version``."""
    match = _CIVITAI.fullmatch(rest.strip("/ "))
    if match is None:
        raise NotThisWayError("write civitai:<model number> or civitai:<model>@<version>")
    values = _values(match[3] or "")
    return _civitai(match[1] or None, match[2] or values.get("modelVersionId"), values)


def _values(query: str) -> dict[str, str]:
    """A query's names and values; a slash after it is none of them."""
    return dict(parse_qsl(query.rstrip("/& ")))


def _part(segments: list[str], index: int) -> str:
    return segments[index] if len(segments) > index else ""


def _civitai(model: str | None, version: str | None, values: dict[str, str]) -> CivitAI:
    if "token" in values:
        raise NotThisWayError(
            "the address holds a token, which would be saved with the workflow. Remove it and set "
            "CIVITAI_API_TOKEN in the environment"
        )
    if values.get("format", "SafeTensor").lower() != "safetensor":
        raise NotThisWayError("only the SafeTensor format is taken: the others can run code")
    numbers = [model, version, values.get("fileId")]
    for number in numbers:
        if number is not None and _NUMBER.fullmatch(number) is None:
            raise NotThisWayError(
                "a model, version or file of civitai is a number, as in "
                "https://civitai.com/models/12345?modelVersionId=678"
            )
    if model is None and version is None:
        raise NotThisWayError("write civitai:<model number> or civitai:<model>@<version>")
    names = ("fp", "quantType", "size")
    want = tuple((n, values[n]) for n in names if _WANT.fullmatch(values.get(n, "")))
    found = [int(number) if number else None for number in numbers]
    return CivitAI(found[0], found[1], found[2], want)


def replicate(segments: list[str], *, link: bool) -> Replicate:
    """Read owner/name with a version after a slash, a colon or ``versions/``.

    Args:
        segments: The text or the address's path, cut at its slashes.
        link: It is an address of replicate.com, whose tabs and pages are known.
    """
    parts = [part.strip() for part in segments if part.strip()]
    if link:
        parts = [unquote(part) for part in parts]
        parts = parts[2:] if parts[:2] == ["v1", "models"] else parts
    owner, name, version = _replicate_parts(parts, link=link)
    if not (_OWNER.fullmatch(owner) and _WORD.fullmatch(name)):
        raise NotThisWayError(
            "a Replicate model is named owner/name, owner/name:version or owner/name/version; "
            "hf:owner/name is the form for Hugging Face"
        )
    if version is not None and _VERSION.fullmatch(version) is None:
        raise NotThisWayError(
            f"read as the Replicate model {owner}/{name}, whose version would be {version!r}; a "
            "version is 6 to 64 hexadecimal digits. A file in a Hugging Face repository is "
            "hf:owner/name/file.safetensors"
        )
    return Replicate(owner, name, version.lower() if version else None)


def _replicate_parts(parts: list[str], *, link: bool) -> tuple[str, str, str | None]:
    if len(parts) < 2 or (link and parts[0] in _REPLICATE_PAGES):
        page = "this page of replicate.com is not a model" if link else "this names no LoRA"
        raise NotThisWayError(
            f"{page}. Write owner/name for a model on Replicate, hf:owner/name for Hugging Face, "
            "or the name of a file in your loras folder with its .safetensors"
        )
    owner, name, rest = parts[0], parts[1], parts[2:]
    name, colon, version = name.partition(":")
    if rest[1:] and rest[0] == "versions":
        rest = rest[1:]
    for at, part in enumerate(rest):
        if part in _REPLICATE_TABS and (link or part == "_weights" or at):
            rest = rest[:at]  # of a tab nothing matters but what stands before it
            break
    if len(rest) > 1 or (colon and rest):
        raise NotThisWayError(
            "this has too many parts. Write owner/name/version for Replicate, or "
            "hf:owner/name/folder/file.safetensors for Hugging Face"
        )
    return owner, name, rest[0] if rest else (version if colon else None)
