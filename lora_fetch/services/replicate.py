"""Replicate: a model trained there, by the site that leads to its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote, urljoin, urlsplit

from ...errors import FetchError, NotAuthorisedError, NotFoundError, NotThisWayError, OfflineError
from ...files.addresses import bare_url
from ...files.answer import Answer
from ...files.explain import GONE, Asked
from ...files.net import UNAUTHORISED
from ..api import Api, Resolved, table
from ..source import Address, Service, Source, names_file
from .link import AskedLink

__all__ = ["SERVICE", "Replicate"]

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,94}")
_VERSION = re.compile(r"[0-9a-fA-F]{6,64}")
_PAGES = {
    *("account", "blog", "collections", "deployments", "docs", "explore", "p", "pricing"),
    *("signin", "trainings"),
}
_TABS = {
    *("api", "cost", "examples", "llms.txt", "playground", "readme", "runs", "settings", "train"),
    *("versions", "_weights"),
}


@dataclass(frozen=True)
class Replicate(Source):
    """A model trained on Replicate; without a version, its newest one."""

    kind: ClassVar[str] = "replicate"
    prefix: ClassVar[str] = "replicate:"

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

    def asked(self) -> Asked:
        """What it is called in messages, and what Replicate's refusals mean."""
        return _AskedReplicate(self.shown(), self)

    def resolve(self, api: Api, *, probe: bool) -> Resolved:  # noqa: ARG002, it is always asked
        """Follow the model's weights to the tar they live in.

        The site answers with a redirect to the delivery host; its final address is the revision,
        since a delivery never changes.
        """
        base = f"{api.settings.endpoints.replicate}/{self.owner}/{self.name}"
        url = f"{base}/versions/{self.version}/_weights" if self.version else f"{base}/_weights"
        try:
            answer = api.look("GET", url, follow=_to_another_site)
            if "html" in answer.header("Content-Type") and answer.status < 300:
                raise NotAuthorisedError(
                    f"{self.shown()}: Replicate shows a page instead of the weights, so they are "
                    "not public. Download them from the training's page into your loras folder and "
                    "give the file's name.",
                    status=answer.status,
                )
        except (NotFoundError, NotAuthorisedError) as error:
            raise _known(self, api, error) from None
        target = answer.url
        if answer.status >= 300:
            target = urljoin(answer.url, answer.location)
        name = urlsplit(target).path.rsplit("/", 1)[-1]
        return Resolved(
            url=target,
            tar=not name.lower().endswith(".safetensors"),
            name=name,
            revision=bare_url(target),
        )


# --- its texts ---


def _page(address: Address) -> Replicate:
    return _read(address.path.split("/"), link=True)


def _named(rest: str) -> Replicate:
    return _read(rest.split("/"), link=False)


def _bare(text: str) -> Replicate | None:
    return None if names_file(text) else _named(text)


def _read(segments: list[str], *, link: bool) -> Replicate:
    """Read owner/name with a version after a slash, a colon or ``versions/``.

    Args:
        segments: The text or the address's path, cut at its slashes.
        link: It is an address of replicate.com, whose tabs and pages are known.
    """
    parts = [part.strip() for part in segments if part.strip()]
    if link:
        parts = [unquote(part) for part in parts]
        parts = parts[2:] if parts[:2] == ["v1", "models"] else parts
    owner, name, version = _parts(parts, link=link)
    if not (_OWNER.fullmatch(owner) and _WORD.fullmatch(name)):
        raise NotThisWayError(
            "write a Replicate model as owner/name, owner/name:version or owner/name/version, and "
            "one of Hugging Face as hf:owner/name"
        )
    if version is not None and _VERSION.fullmatch(version) is None:
        raise NotThisWayError(
            f"read as the Replicate model {owner}/{name}, whose version would be {version!r}; give "
            "one of 6 to 64 hexadecimal digits. Write a file in a Hugging Face repository as "
            "hf:owner/name/file.safetensors"
        )
    return Replicate(owner, name, version.lower() if version else None)


def _parts(parts: list[str], *, link: bool) -> tuple[str, str, str | None]:
    if len(parts) < 2 or (link and parts[0] in _PAGES):
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
        if part in _TABS and (link or part == "_weights" or at):
            rest = rest[:at]  # of a tab nothing matters but what stands before it
            break
    if len(rest) > 1 or (colon and rest):
        raise NotThisWayError(
            "this has too many parts. Write owner/name/version for Replicate, or "
            "hf:owner/name/folder/file.safetensors for Hugging Face"
        )
    return owner, name, rest[0] if rest else (version if colon else None)


# --- its weights ---


def _to_another_site(_: Answer, target: str) -> bool:
    """Whether a redirect asks the same of another address of the site."""
    return urlsplit(target).path.endswith("/_weights")


def _known(source: Replicate, api: Api, error: NotFoundError | NotAuthorisedError) -> FetchError:
    """With the user's token, tell a model that is private from one that does not exist."""
    url = f"{api.settings.endpoints.replicate_api}/v1/models/{source.owner}/{source.name}"
    if api.settings.tokens.for_url(url) is None:
        return error
    try:
        model = table(api.json(url)[0])
    except NotAuthorisedError as refusal:
        if refusal.status != UNAUTHORISED:
            return error
        name = api.settings.endpoints.token_name(url)
        said = f"{error} Whether it is private cannot be told: your {name} is not accepted."
        return type(error)(said, status=error.status)
    except (NotFoundError, OfflineError):
        return error
    return NotAuthorisedError(
        f"{source.shown()}: the model exists ({model.get('visibility', 'visible to you')}), but "
        "Replicate gives out no weights for it here. It may not be a LoRA; if it is yours, "
        "download the weights from the training's page into your loras folder and give the name."
    )


# --- its refusals ---


@dataclass(frozen=True)
class _AskedReplicate(AskedLink):
    source: Replicate

    def refused(self, answer: Answer, words: str) -> FetchError:
        source, status = self.source, answer.status
        if status in GONE:
            return NotFoundError(
                f"{self.shown}: Replicate has no public weights of that name (HTTP {status}{words})"
                ". Check the name. For a repository of Hugging Face write "
                f"hf:{source.owner}/{source.name}",
                status=status,
            )
        return NotAuthorisedError(
            f"{self.shown}: its weights are not public on Replicate (HTTP {status}{words}). "
            "Download them from the training's page into your loras folder and give the file's "
            "name.",
            status=status,
        )


SERVICE = Service(
    sources=(Replicate,),
    form="owner/name (Replicate)",
    prefixes={"replicate": _named},
    sites=frozenset(("replicate.com", "api.replicate.com")),
    page=_page,
    bare=_bare,
)
