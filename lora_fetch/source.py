"""The kinds of place a LoRA can come from, as plain values.

Each value knows its one canonical spelling, which `parse` reads back as the same value, and whether
what it names can change. No network, no disk.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ..files.addresses import bare_url

__all__ = [
    "CivitAI",
    "DataURI",
    "HuggingFace",
    "Link",
    "LocalFile",
    "Replicate",
    "Source",
    "Tar",
    "named_in",
]

HUB_TABS = {
    *("resolve", "blob", "raw", "tree", "commit", "commits", "blame", "edit", "delete", "upload"),
    *("discussions", "community", "settings", "activity", "colab"),
}
"""What stands after the name of a repository in the addresses of its pages."""

_ENDING = re.compile(r"\.(?:safetensors|tar)(?![\w.-])", re.IGNORECASE)
_BEFORE_NAME = re.compile(r"[/\\\"';=]")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Replicate:
    """A model trained on Replicate; without a version, its newest one."""

    owner: str
    name: str
    version: str | None = None

    @property
    def moving(self) -> bool:
        """Whether the name can come to mean other bytes."""
        return self.version is None

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return f"{self.owner}-{self.name}"

    def canonical(self) -> str:
        """The one spelling of this source."""
        return f"replicate:{self.owner}/{self.name}" + (f":{self.version}" if self.version else "")

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.canonical()


@dataclass(frozen=True)
class HuggingFace:
    """A repository of the hub, or a folder or a file in it."""

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

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.canonical()


@dataclass(frozen=True)
class CivitAI:
    """A model page, a version of it, or one file of a version."""

    model: int | None = None
    version: int | None = None
    file: int | None = None
    want: tuple[tuple[str, str], ...] = ()
    """Which of several files: pairs of ``fp``, ``size``, ``quantType`` and their value, sorted."""

    @property
    def moving(self) -> bool:
        """A page can gain a newer version; a version stands still."""
        return self.version is None

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return f"civitai-{self.model or self.version}"

    def canonical(self) -> str:
        """The one spelling of this source."""
        pairs = ([("fileId", str(self.file))] if self.file else []) + list(self.want)
        version = f"@{self.version}" if self.version else ""
        return f"civitai:{self.model or ''}{version}" + (f"?{urlencode(pairs)}" if pairs else "")

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.canonical()


@dataclass(frozen=True)
class Link:
    """A web address of a .safetensors file."""

    url: str
    sha256: str | None = None

    @property
    def moving(self) -> bool:
        """What an address serves can change, unless its hash is given."""
        return self.sha256 is None

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return _stem(self.url)

    def canonical(self) -> str:
        """The one spelling of this source."""
        return self.url + (f"#sha256={self.sha256}" if self.sha256 else "")

    def shown(self) -> str:
        """The address without its query, which can hold a signature."""
        return bare_url(self.url)


@dataclass(frozen=True)
class Tar(Link):
    """A web address of a tar with one .safetensors file in it, as Replicate's trainer makes."""

    @property
    def moving(self) -> bool:
        """Replicate's deliveries never change."""
        host = urlsplit(self.url).hostname or ""
        delivery = host == "replicate.delivery" or host.endswith(".replicate.delivery")
        return self.sha256 is None and not delivery


@dataclass(frozen=True)
class LocalFile:
    """A file in ComfyUI's loras folders, by its name below them."""

    name: str

    @property
    def moving(self) -> bool:
        """It is looked at each time anyway."""
        return False

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return self.name

    def canonical(self) -> str:
        """The one spelling of this source."""
        return f"local:{self.name}"

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.name


@dataclass(frozen=True)
class DataURI:
    """The bytes themselves: a small .safetensors file, or a tar with one."""

    data: bytes

    @property
    def moving(self) -> bool:
        """Bytes stand still."""
        return False

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return "data"

    def canonical(self) -> str:
        """The one spelling of this source."""
        return "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()

    def shown(self) -> str:
        """What it is, instead of all of it."""
        return f"data:({len(self.data)} bytes, sha256 {hashlib.sha256(self.data).hexdigest()[:12]})"


Source: TypeAlias = Replicate | HuggingFace | CivitAI | Link | Tar | LocalFile | DataURI


def named_in(url: str) -> str:
    """The name of the .safetensors or .tar file that an address gives, or an empty text.

    It is the end of the path, or stands in the query, as in ``?file=a.safetensors`` and in the
    ``response-content-disposition`` of signed addresses.
    """
    parts = urlsplit(url)
    last = unquote(parts.path).rsplit("/", 1)[-1]
    if last.lower().endswith((".safetensors", ".tar")):
        return last
    for _, value in parse_qsl(parts.query):
        found = _ENDING.search(value)
        if found is not None:
            return unquote(_BEFORE_NAME.split(value[: found.end()])[-1])
    return ""


def _stem(url: str) -> str:
    parts = urlsplit(url)
    last = parts.path.rsplit("/", 1)[-1]
    for name in (last, named_in(url)):
        for suffix in (".safetensors", ".tar"):
            if name.lower().endswith(suffix):
                return name[: -len(suffix)] or parts.hostname or "lora"
    return last or parts.hostname or "lora"
