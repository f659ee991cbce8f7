"""Hugging Face: a repository, a folder or a file in it; which file, at which commit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests.utils

from ...errors import FetchError, NotAuthorisedError, NotFoundError, NotThisWayError, OfflineError
from ...files.addresses import origin
from ...files.answer import Answer, host_of
from ...files.explain import GONE, Asked
from ...files.net import UNAUTHORISED
from ...files.settings import Settings
from ...files.validators import length
from ..api import Api, Resolved, rows
from ..source import Address, Service, Source
from . import air
from .link import AskedLink

__all__ = ["HUB_TABS", "SERVICE", "HuggingFace", "choose"]

MAX_PAGES = 20
HUB_TABS = {
    *("resolve", "blob", "raw", "tree", "commit", "commits", "blame", "edit", "delete", "upload"),
    *("discussions", "community", "settings", "activity", "colab"),
}
"""What stands after the name of a repository in the addresses of its pages."""

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "lora.safetensors")
_PEFT_NAME = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_FILE_TABS = {"resolve", "blob", "raw", "blame", "edit", "delete"}
_REVISION_TABS = {*_FILE_TABS, "tree", "commit", "commits", "upload"}
_PAGES = {
    *("api", "blog", "chat", "collections", "datasets", "docs", "join", "learn", "login"),
    *("models", "new", "organizations", "papers", "posts", "pricing", "settings", "spaces"),
}
_WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".zip", ".tar", ".tgz")


@dataclass(frozen=True)
class HuggingFace(Source):
    """A repository of the hub, or a folder or a file in it."""

    kind: ClassVar[str] = "huggingface"
    prefix: ClassVar[str] = "hf:"

    repo: str
    revision: str | None = None
    path: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether the path names the file itself."""
        return self.path is not None and self.path.lower().endswith(".safetensors")

    @property
    def moving(self) -> bool:
        """Only a full commit stands still."""
        return self.revision is None or _COMMIT.fullmatch(self.revision) is None

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return self.repo.replace("/", "-")

    def canonical(self) -> str:
        """The one spelling of this source."""
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        path = f"/{quote(self.path)}" if self.path else ""
        if not revision and self.path and self.path.split("/")[0] in HUB_TABS:
            path = f"/.{path}"  # a folder of that name, not the tab
        return f"hf:{self.repo}{revision}{path}"

    def asked(self) -> Asked:
        """What it is called in messages, and what the hub's refusals mean."""
        return _AskedHub(self.shown(), self)

    def resolve(self, api: Api, *, probe: bool) -> Resolved:  # noqa: ARG002, it is always asked
        """Find the file and read what the hub publishes about it."""
        path = self.path if self.is_file and self.path else _pick(self, api)
        hub = api.settings.endpoints.hub
        revision = self.revision or "main"
        answer = api.look("HEAD", _address(hub, self.repo, revision, path), follow=_to_a_hub)
        commit = answer.header("X-Repo-Commit") or revision
        etag = answer.header("X-Linked-Etag") or answer.header("ETag")
        etag = etag.removeprefix("W/").strip('"').lower()
        folder, _, name = path.rpartition("/")
        config = f"{folder}/{_CONFIG}".lstrip("/") if name == _PEFT_NAME else None
        return Resolved(
            url=_address(hub, self.repo, commit, path),
            name=name,
            size=length(answer.header("X-Linked-Size")),
            sha256=etag if _SHA256.fullmatch(etag) else None,
            revision=commit,
            config=config and _address(hub, self.repo, commit, config),
        )


# --- its texts ---


def _page(address: Address) -> HuggingFace:
    return _read(address.path)


def _air(rest: str) -> HuggingFace | None:
    site, name = air.site_and_name(rest)
    return _read(name) if site == "huggingface" else None


def _read(rest: str) -> HuggingFace:
    """Read what follows ``hf:`` or the host: owner/name, then a revision, a folder or a file."""
    segments = [part for part in re.split(r"[?#]", rest, maxsplit=1)[0].split("/") if part]
    if segments[:2] == ["api", "models"]:
        segments = segments[2:]
    if len(segments) < 2 or segments[0].lower() in _PAGES:
        raise NotThisWayError(
            "no model repository is named. Write hf:owner/name or https://huggingface.co/owner/name"
        )
    owner = segments[0]
    name, _, revision = segments[1].partition("@")
    rest_of = segments[2:]
    verb = ""
    if not revision and rest_of and rest_of[0] in HUB_TABS:
        verb, revision, rest_of = _tab(rest_of)
    if not (_WORD.fullmatch(owner) and _WORD.fullmatch(name)) or ".." in owner + name:
        raise NotThisWayError("write the repository as owner/name, with letters, digits, '-._'")
    path = _clean("/".join(rest_of))
    found = HuggingFace(f"{owner}/{name}", _clean(revision) or None, path or None)
    if (verb in _FILE_TABS and not found.is_file) or (path.lower().endswith(_WEIGHTS)):
        raise NotThisWayError(
            "only a .safetensors file can be taken from a repository. Name one: hf:owner/name/file"
        )
    return found


def _tab(segments: list[str]) -> tuple[str, str, list[str]]:
    """Split ``resolve/<revision>/<path>``; ``refs/pr/1`` is one revision in three parts."""
    if segments[0] not in _REVISION_TABS:
        return segments[0], "", []
    size = 3 if segments[1:2] == ["refs"] else 1
    revision = "/".join(segments[1 : 1 + size])
    return segments[0], revision, segments[1 + size :]


def _clean(text: str) -> str:
    """Undo the percent signs of an address, and refuse what could climb out of a folder."""
    text = "/".join(part for part in unquote(text).split("/") if part not in ("", "."))
    if not text.isprintable() or "\\" in text or ".." in text.split("/"):
        raise NotThisWayError(
            "the path in the repository holds '..' or odd signs. Copy it from the file's page"
        )
    return text


# --- its files ---


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
        document, headers, url, _ = api.json(url)
        services.add(origin(url))
        files += [f["path"] for f in rows(document) if isinstance(f.get("path"), str)]
        links: list[dict[str, Any]] = requests.utils.parse_header_links(headers.get("Link", ""))
        after = [str(link.get("url", "")) for link in links if link.get("rel") == "next"]
        if not after:
            return choose(source, files)
        url = urljoin(url, after[0])
        if origin(url) not in services:
            raise OfflineError(
                f"{source.shown()}: the list of files leads away from the hub. Name the file: "
                f"{replace(source, path=None).canonical()}/<file>"
            )
    raise NotFoundError(
        f"{source.shown()} has too many files to choose from. Name one: "
        f"{replace(source, path=None).canonical()}/<file>"
    )


def _to_a_hub(answer: Answer, target: str) -> bool:
    """Whether a redirect leads to another hub, as those of mirrors do, and not to a file server."""
    return not answer.header("X-Repo-Commit") and "/resolve/" in urlsplit(target).path


def _address(hub: str, repo: str, revision: str, path: str) -> str:
    return f"{hub}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


# --- its refusals ---


@dataclass(frozen=True)
class _AskedHub(AskedLink):
    source: HuggingFace

    def withheld(self, answer: Answer, settings: Settings) -> FetchError:
        """Where the hub itself speaks, from another of its addresses, its refusal counts."""
        if answer.header("X-Error-Code"):
            return self.failure(answer, settings)
        return super().withheld(answer, settings)

    def refused(self, answer: Answer, words: str) -> FetchError:
        status = answer.status
        page = f"https://huggingface.co/{self.source.repo}"
        code = answer.header("X-Error-Code")
        sent = answer.auth == "sent"
        if code == "GatedRepo":
            remedy = f"Accept its terms at {page}" + (
                " with the account of your HF_TOKEN." if sent else f", then {_set_token(answer)}."
            )
            return NotAuthorisedError(f"{self.shown} is gated. {remedy}", status=status)
        if status in GONE or code in ("RevisionNotFound", "EntryNotFound", "RepoNotFound"):
            return NotFoundError(f"{self.shown}: {self._missing(answer, page)}", status=status)
        if sent and status == UNAUTHORISED:
            remedy = (
                "Your HF_TOKEN is not accepted, and without it the file is not public: make a new "
                "one at https://huggingface.co/settings/tokens, and check the name."
            )
        else:
            remedy = (
                ("Your HF_TOKEN does not reach it: use one of an account that may read it.")
                if sent
                else f"{_set_token(answer)}."
            )
        remedy = remedy[:1].upper() + remedy[1:]
        return NotAuthorisedError(
            f"{self.shown}: Hugging Face refuses (HTTP {status}{words}). {remedy}", status=status
        )

    def _missing(self, answer: Answer, page: str) -> str:
        """What of it is not there, and where to look."""
        revision, path = self.source.revision, self.source.path
        code = answer.header("X-Error-Code")
        if code == "RevisionNotFound":
            return f"the repository has no revision {revision!r}. See {page}/commits."
        if code == "EntryNotFound":
            tree = f"{page}/tree/{revision or 'main'}"
            return f"the repository has no file {path!r}. See {tree}."
        remedy = "check the name"
        if answer.auth != "sent":
            remedy += f", or {_set_token(answer)} if it is private"
        return f"Hugging Face has no such repository that you may see; {remedy}."


def _set_token(answer: Answer) -> str:
    if answer.auth == "kept":
        return (
            f"unset HF_ENDPOINT, whose mirror leads to {host_of(answer.url)}: your HF_TOKEN goes "
            "to the mirror alone"
        )
    return "set HF_TOKEN" + (
        " to a new token (yours is not accepted)" if answer.auth == "refused" else ""
    )


SERVICE = Service(
    sources=(HuggingFace,),
    form="hf:owner/name, a page or file of huggingface.co",
    prefixes={"hf": _read, "huggingface": _read, "urn": _air, "air": _air},
    sites=frozenset(("huggingface.co", "hf.co")),
    page=_page,
)
