"""Files that are in the loras folders already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import NotThisWayError
from ..source import Service, Source, is_path, names_file

__all__ = ["SERVICE", "LocalFile"]


@dataclass(frozen=True)
class LocalFile(Source):
    """A file in ComfyUI's loras folders, by its name below them."""

    kind: ClassVar[str] = "local"

    name: str

    @property
    def moving(self) -> bool:
        """It is looked at each time anyway."""
        return False

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return self.name

    @property
    def unpinned(self) -> str:
        """A ``#`` is a part of its name."""
        return ""

    def canonical(self) -> str:
        """The one spelling of this source."""
        return f"local:{self.name}"

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.name


def _bare(text: str) -> LocalFile | None:
    if is_path(text) or text.lower().endswith(".safetensors"):
        return _read(text)
    if names_file(text):
        raise NotThisWayError(
            "only .safetensors files are taken: the others can run code. Use one of those"
        )
    return None


def _read(text: str) -> LocalFile:
    name = text.strip().replace("\\", "/")
    if name.startswith(("/", "~")) or ":" in name:
        raise NotThisWayError(
            "a path outside the loras folders is not read. Put the file into ComfyUI's "
            "models/loras and give its name"
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not name.lower().endswith(".safetensors"):
        raise NotThisWayError("write a local file as folder/name.safetensors, without '..'")
    return LocalFile("/".join(parts))


SERVICE = Service(
    sources=(LocalFile,),
    form="a file name of your loras folder",
    prefixes={"local": _read},
    bare=_bare,
)
