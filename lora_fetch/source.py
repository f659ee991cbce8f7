"""What a source of LoRAs is, and what a service has to offer so that its texts become sources.

No network, no disk. The services themselves are in `services`, one module each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..files.explain import Asked
from .api import Api, Resolved

__all__ = [
    "OTHER_FILES",
    "Address",
    "Service",
    "Source",
    "is_path",
    "names_file",
]

OTHER_FILES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".zip", ".tar.gz", ".tgz", ".7z")
"""Endings of files that hold weights, and are not taken."""

_PORTS = {"http": 80, "https": 443}


class Source(ABC):
    """A place that a LoRA comes from, as a plain value.

    It knows its one canonical spelling, which `parse` reads back as the same value.

    Attributes:
        kind: The name of its kind, for programs.
        prefix: How the spellings of its kind start, where that tells no more than the kind.
    """

    kind: ClassVar[str]
    prefix: ClassVar[str] = ""

    @property
    @abstractmethod
    def moving(self) -> bool:
        """Whether what it names can come to mean other bytes."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Readable start of a file name."""

    @property
    def unpinned(self) -> str:
        """Why ``#sha256=`` at the end of its text pins nothing; empty where it does."""
        return (
            "#sha256= goes after the address of a file elsewhere. To pin a file of this service, "
            "write a version or a commit"
        )

    @abstractmethod
    def canonical(self) -> str:
        """The one spelling of this source."""

    def shown(self) -> str:
        """The spelling for messages and the index, without secrets."""
        return self.canonical()

    def asked(self) -> Asked:
        """What it is called in messages, and what its service's refusals mean."""
        return Asked(self.shown())

    def resolve(self, api: Api, *, probe: bool) -> Resolved:  # noqa: ARG002, for others
        """Ask the service where the bytes are, and what is known about them beforehand.

        Args:
            api: Asks the service.
            probe: Also ask a plain link for its present state, to learn whether it changed.

        Raises:
            FetchError: there are none, we may not have them, or the service cannot be reached.
            TypeError: it needs no address.
        """
        raise TypeError(f"{type(self).__name__} needs no address")


@dataclass(frozen=True)
class Address:
    """A web address in its parts.

    Attributes:
        scheme: ``http`` or ``https``.
        host: In lower case and in ASCII.
        port: As it was written.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    query: str
    fragment: str

    @property
    def site(self) -> str:
        """The host without ``www.``; empty on a port where no site of that name is."""
        return self.host.removeprefix("www.") if self.port in (None, *_PORTS.values()) else ""

    @property
    def start(self) -> str:
        """All before the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port in (None, _PORTS[self.scheme])
        return f"{self.scheme}://{host}" + ("" if usual else f":{self.port}")


def _not_mine(_: object) -> None:
    return None


@dataclass(frozen=True)
class Service:
    """How the texts of a service are known and read.

    A reader gives None for what is not of its service, and then the next service is asked. It
    raises NotThisWayError for what is, and cannot be read.

    Attributes:
        sources: The kinds of source that it has.
        form: How its texts look, for a message; empty for what nobody writes by hand.
        prefixes: What its texts start with before a colon, in lower case, each with what reads
            the rest.
        sites: Its hosts, in lower case and without ``www.``; of any other host if empty.
        page: Reads an address on one of its hosts.
        bare: Reads a text without prefix and host.
        whole: Reads a text as it stands, however long it is and whatever signs it holds.
    """

    sources: tuple[type[Source], ...]
    form: str = ""
    prefixes: Mapping[str, Callable[[str], Source | None]] = field(
        default_factory=dict[str, Callable[[str], Source | None]]
    )
    sites: frozenset[str] = frozenset()
    page: Callable[[Address], Source | None] = _not_mine
    bare: Callable[[str], Source | None] = _not_mine
    whole: Callable[[str], Source | None] = _not_mine


def is_path(text: str) -> bool:
    """Whether a text without prefix and host is written as a path of this machine is."""
    return "\\" in text or text.startswith(("/", "~"))


def names_file(text: str) -> bool:
    """Whether a text without prefix and host is a path, or ends like a file with weights."""
    return is_path(text) or text.lower().endswith((".safetensors", *OTHER_FILES))
