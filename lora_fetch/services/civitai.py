"""CivitAI: a model page to the version, the file and the download address that belong to it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast
from urllib.parse import parse_qsl, urlencode

from ...errors import (
    NotAuthorisedError,
    NotFoundError,
    NotThisWayError,
    OfflineError,
    RefusedError,
)
from ...files.explain import Asked
from ..api import Api, Resolved, rows, table
from ..source import Address, Service, Source
from . import air
from .civitai_refusals import AskedCivitAI

__all__ = ["SERVICE", "CivitAI"]

_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_NAMED = re.compile(r"([0-9]*)(?:\s*@\s*([0-9]+))?/*(?:[?&](.*))?")
_WANT = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_GONE = {"Archived": "archived", "TakenDown": "taken down"}
_FLUX = re.compile(r"flux[ ._-]*(\d*)", re.IGNORECASE)
_LORA_TYPES = {"lora", "locon", "dora", "lycoris"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CivitAI(Source):
    """A model page, a version of it, or one file of a version."""

    kind: ClassVar[str] = "civitai"
    prefix: ClassVar[str] = "civitai:"

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

    def asked(self) -> Asked:
        """What it is called in messages, and what CivitAI's refusals mean."""
        return AskedCivitAI(self.shown(), self.model)

    def resolve(self, api: Api, *, probe: bool) -> Resolved:  # noqa: ARG002, it is always asked
        """Ask the API for the version and its file."""
        if self.version:
            return _resolved(self, _version(self, api), api)
        newest, *others = _newest_first(self, api)
        found = _resolved(self, newest, api)
        if others and (older := _free(others)):
            found = replace(found, older=_older(self, found, older, api))
        may_ask = api.settings.tokens.for_url(api.settings.endpoints.civitai) is not None
        return found if found.older is None or may_ask or not found.early else found.older


# --- its texts ---


def _page(address: Address) -> CivitAI:
    """Read an address on civitai.com."""
    path, _, more = address.path.partition("&")  # a query whose question mark was lost
    values = _values(f"{address.query}&{more}")
    segments = [part for part in path.split("/") if part]
    if segments[:3] == ["api", "download", "models"]:
        return _numbered(None, _part(segments, 3), values)
    if segments[:2] == ["api", "v1"]:
        segments = segments[2:]
    if segments[:1] == ["model-versions"]:
        return _numbered(None, _part(segments, 1), values)
    if segments[:1] != ["models"]:
        raise NotThisWayError(
            "this page of civitai.com is not a model. Write https://civitai.com/models/<number> "
            "or civitai:<number>"
        )
    inner = _part(segments, 3) if segments[2:3] == ["model-versions"] else None
    return _numbered(_part(segments, 1), inner or values.get("modelVersionId"), values)


def _named(rest: str) -> CivitAI:
    """Read what follows ``civitai:``: ``model``, ``model@version`` or ``@version``."""
    match = _NAMED.fullmatch(rest.strip("/ "))
    if match is None:
        raise NotThisWayError("write civitai:<model number> or civitai:<model>@<version>")
    values = _values(match[3] or "")
    return _numbered(match[1] or None, match[2] or values.get("modelVersionId"), values)


def _air(rest: str) -> CivitAI:
    site, name = air.site_and_name(rest)
    if site != "civitai":
        raise NotThisWayError(
            f"AIRs of {site!r} are not understood. Give one of civitai or huggingface"
        )
    return _named(re.split(r"[:.]", name, maxsplit=1)[0])


def _values(query: str) -> dict[str, str]:
    """A query's names and values; a slash after it is none of them."""
    return dict(parse_qsl(query.rstrip("/& ")))


def _part(segments: list[str], index: int) -> str:
    return segments[index] if len(segments) > index else ""


def _numbered(model: str | None, version: str | None, values: dict[str, str]) -> CivitAI:
    if "token" in values:
        raise NotThisWayError(
            "the address holds a token, which would be saved with the workflow. Remove it and set "
            "CIVITAI_API_TOKEN in the environment"
        )
    if values.get("format", "SafeTensor").lower() != "safetensor":
        raise NotThisWayError(
            "only the SafeTensor format is taken: the others can run code. Choose that on the page"
        )
    numbers = [model, version, values.get("fileId")]
    for number in numbers:
        if number is not None and _NUMBER.fullmatch(number) is None:
            raise NotThisWayError(
                "write each model, version or file of civitai as a number, as in "
                "https://civitai.com/models/12345?modelVersionId=678"
            )
    if model is None and version is None:
        raise NotThisWayError("write civitai:<model number> or civitai:<model>@<version>")
    names = ("fp", "quantType", "size")
    want = tuple((n, values[n]) for n in names if _WANT.fullmatch(values.get(n, "")))
    found = [int(number) if number else None for number in numbers]
    return CivitAI(found[0], found[1], found[2], want)


# --- its files ---


def _resolved(source: CivitAI, version: dict[str, Any], api: Api) -> Resolved:
    file = _file(source, version)
    warnings: list[str] = []
    base = str(version.get("baseModel") or "")
    if base and not _is_flux1(base):
        warnings.append(f"{source.shown()}: this LoRA was made for {base}, not for FLUX.1.")
    given: Any = version.get("trainedWords")
    words = cast("list[object]", given) if isinstance(given, list) else []
    sha256 = str(table(file.get("hashes")).get("SHA256") or "")
    number = int(version["id"])
    return Resolved(
        url=f"{api.settings.endpoints.civitai}/api/download/models/{number}?fileId={file['id']}",
        name=str(file.get("name") or ""),
        sha256=sha256.lower() if _SHA256.fullmatch(sha256) else None,
        revision=f"{number}/{file['id']}",
        trigger_words=tuple(word.strip(" ,") for word in words if isinstance(word, str)),
        warnings=tuple(warnings),
        early=_is_early(version),
    )


def _older(source: CivitAI, newest: Resolved, version: dict[str, Any], api: Api) -> Resolved | None:
    """A version to take while the newest one is in early access, if it has a file to take."""
    try:
        found = _resolved(source, version, api)
    except NotFoundError:
        return None
    number = (newest.revision or "").partition("/")[0]
    warning = (
        f"{source.shown()}: the newest version is in early access, so version {version['id']} "
        f"from before it is used. Once you may have the newest, write "
        f"civitai:{source.model}@{number}, or wait until it is free."
    )
    return replace(found, warnings=(*found.warnings, warning))


def _free(versions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest of them that everybody may have."""
    return next((version for version in versions if not _is_early(version)), None)


def _is_early(version: dict[str, Any]) -> bool:
    return str(version.get("availability") or "").lower() == "earlyaccess"


def _is_flux1(base: str) -> bool:
    """Whether a base model is of the first FLUX: dev, schnell, Krea, Kontext; not FLUX.2."""
    match = _FLUX.match(base)
    return match is not None and match[1] in ("", "1")


def _version(source: CivitAI, api: Api) -> dict[str, Any]:
    version = table(_ask(f"/api/v1/model-versions/{source.version}", api))
    owner = version.get("modelId")
    if not isinstance(version.get("id"), int):
        raise NotFoundError(
            f"{source.shown()}: CivitAI describes no such version. Check the number."
        )
    if source.model and owner != source.model:
        raise NotFoundError(
            f"{source.shown()}: version {source.version} belongs to model {owner}. Check the "
            "address."
        )
    _is_lora(source, table(version.get("model")))
    return version


def _newest_first(source: CivitAI, api: Api) -> list[dict[str, Any]]:
    """The versions made for FLUX.1, or all if there are none; at least one, in the API's order."""
    model = table(_ask(f"/api/v1/models/{source.model}", api))
    _is_lora(source, model)
    versions = [v for v in rows(model.get("modelVersions")) if isinstance(v.get("id"), int)]
    if not versions:
        raise NotFoundError(
            f"{source.shown()}: the model has no published version. Check the number, or take "
            "another model."
        )
    flux = [v for v in versions if _is_flux1(str(v.get("baseModel") or ""))]
    return flux or versions


def _ask(path: str, api: Api) -> object:
    """Ask CivitAI, and its twin for what the first address hides.

    Raises:
        FetchError: as the first address said, where the twin knows nothing either.
    """
    endpoints = api.settings.endpoints
    try:
        return api.json(endpoints.civitai + path).value
    except NotFoundError as error:
        if not endpoints.civitai_twin:
            raise
        try:
            return api.json(endpoints.civitai_twin + path, patient=False).value
        except (NotFoundError, NotAuthorisedError, OfflineError, RefusedError) as second:
            logger.info("%s has nothing either. %s", endpoints.civitai_twin, second)
            raise error from None


def _is_lora(source: CivitAI, model: dict[str, Any]) -> None:
    mode, kind = model.get("mode"), str(model.get("type") or "")
    if mode in _GONE:
        raise NotFoundError(
            f"{source.shown()}: CivitAI has {_GONE[mode]} this model. Take another one, or put the "
            "file into your loras folder if you have it."
        )
    if kind and kind.lower() not in _LORA_TYPES:
        raise NotFoundError(
            f"{source.shown()} is a {kind} on CivitAI, not a LoRA. Give the page of a LoRA."
        )


def _file(source: CivitAI, version: dict[str, Any]) -> dict[str, Any]:
    files = [file for file in rows(version.get("files")) if isinstance(file.get("id"), int)]
    sound = [file for file in files if _is_safetensors(file)]
    if source.file:
        sound = [file for file in sound if file["id"] == source.file]
    for name, value in source.want:
        sound = [f for f in sound if str(table(f.get("metadata")).get(name)) == value]
    sound.sort(key=lambda file: not file.get("primary"))
    if not sound:
        raise NotFoundError(
            f"{source.shown()}: this version has no such .safetensors file. "
            + ("Choose one of its files:" if files else "Take another version: it has no file."),
            choices=_listed(source, version, files),
        )
    file = sound[0]
    for scan in ("pickleScanResult", "virusScanResult"):
        if file.get(scan) == "Danger":
            raise RefusedError(
                f"{source.shown()}: CivitAI's scan calls {file.get('name')} unsafe. Take another "
                "LoRA."
            )
    return file


def _listed(source: CivitAI, version: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    """The files, each with the source that names it, ready to paste."""
    lines: list[str] = []
    for file in files:
        named = replace(source, version=int(version["id"]), file=int(file["id"]), want=())
        takeable = "" if _is_safetensors(file) else ", no LoRA"
        lines.append(f"{named.canonical()}  ({file.get('name')}{takeable})")
    return lines


def _is_safetensors(file: dict[str, Any]) -> bool:
    """Whether it holds the weights; a version can also carry training data or a config."""
    named = str(file.get("name") or "").lower().endswith(".safetensors")
    form = str(table(file.get("metadata")).get("format") or "").lower()
    return (named or form == "safetensor") and file.get("type", "Model") in (
        "Model",
        "Pruned Model",
    )


SERVICE = Service(
    sources=(CivitAI,),
    form="a model of civitai.com",
    prefixes={"civitai": _named, "urn": _air, "air": _air},
    sites=frozenset(("civitai.com", "civitai.red", "civitai.green")),
    page=_page,
)
