"""Hugging Face: which file of a repository, at which commit, of which size and hash."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests.utils

from ..errors import NotFoundError, OfflineError
from ..files.addresses import origin
from ..files.answer import Answer
from ..files.validators import length
from .api import Api, Resolved, rows
from .source import HuggingFace

__all__ = ["choose", "resolve"]

MAX_PAGES = 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "lora.safetensors")


def resolve(source: HuggingFace, api: Api) -> Resolved:
    """Find the file and read what the hub publishes about it.

    Raises:
        FetchError: no such file, no access, or the hub cannot be reached.
    """
    path = source.path if source.is_file and source.path else _pick(source, api)
    hub = api.settings.endpoints.hub
    revision = source.revision or "main"
    answer = api.look("HEAD", _address(hub, source.repo, revision, path), follow=_to_a_hub)
    commit = answer.header("X-Repo-Commit") or revision
    etag = answer.header("X-Linked-Etag") or answer.header("ETag")
    etag = etag.removeprefix("W/").strip('"').lower()
    return Resolved(
        url=_address(hub, source.repo, commit, path),
        name=path.rsplit("/", 1)[-1],
        size=length(answer.header("X-Linked-Size")),
        sha256=etag if _SHA256.fullmatch(etag) else None,
        revision=commit,
    )


def choose(source: HuggingFace, files: list[str]) -> str:
    """Pick one of a repository's files by the stated rule.

    The only .safetensors file; else, among those at the top of the repository (or of the named
    folder) whose name says lora, the only one, or the one with a usual name.

    Raises:
        NotFoundError: there is none, or the rule does not decide; the message lists the files.
    """
    folder = f"{source.path}/" if source.path else ""
    found = sorted(f for f in files if f.startswith(folder) and f.lower().endswith(".safetensors"))
    if len(found) == 1:
        return found[0]
    top = [f for f in found if "/" not in f[len(folder) :] and "lora" in f.lower().split("/")[-1]]
    usual = [f for name in _USUAL_NAMES for f in top if f.lower() == (folder + name).lower()]
    if len(top) == 1 or usual:
        return (usual or top)[0]
    if not found:
        raise NotFoundError(
            f"{source.shown()}: there is no .safetensors file in it. Check the name, and that it "
            "is a LoRA."
        )
    listed = [replace(source, path=f).canonical() for f in found[:20]]
    more = [f"and {len(found) - 20} more"] if len(found) > 20 else []
    raise NotFoundError(
        f"{source.shown()} has several files. Name one of them:", choices=[*listed, *more]
    )


def _pick(source: HuggingFace, api: Api) -> str:
    revision = quote(source.revision or "main", safe="")
    hub = api.settings.endpoints.hub
    url = f"{hub}/api/models/{source.repo}/tree/{revision}?recursive=true"
    files: list[str] = []
    services = {origin(hub)}
    for _ in range(MAX_PAGES):
        document, headers, url = api.json(url)
        services.add(origin(url))
        files += [f["path"] for f in rows(document) if isinstance(f.get("path"), str)]
        links: list[dict[str, Any]] = requests.utils.parse_header_links(headers.get("Link", ""))
        after = [str(link.get("url", "")) for link in links if link.get("rel") == "next"]
        if not after:
            return choose(source, files)
        url = urljoin(url, after[0])
        if origin(url) not in services:
            raise OfflineError(f"{source.shown()}: the list of files leads away from the hub.")
    raise NotFoundError(
        f"{source.shown()} has too many files to choose from. Name one: "
        f"{replace(source, path=None).canonical()}/<file>"
    )


def _to_a_hub(answer: Answer, target: str) -> bool:
    """Whether a redirect leads to another hub, as those of mirrors do, and not to a file server."""
    return not answer.header("X-Repo-Commit") and "/resolve/" in urlsplit(target).path


def _address(hub: str, repo: str, revision: str, path: str) -> str:
    return f"{hub}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"
