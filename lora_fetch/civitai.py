"""CivitAI: a model page to the version, the file and the download address that belong to it."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any, cast

from ..errors import NotAuthorisedError, NotFoundError, OfflineError, RefusedError
from .api import Api, Resolved, rows, table
from .source import CivitAI

__all__ = ["resolve"]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_FLUX = re.compile(r"flux[ ._-]*(\d*)", re.IGNORECASE)
_LORA_TYPES = {"lora", "locon", "dora", "lycoris"}

logger = logging.getLogger(__name__)


def resolve(source: CivitAI, api: Api) -> Resolved:
    """Ask the API for the version and its file.

    Raises:
        FetchError: there is none, it is not a LoRA, or the service cannot be reached.
    """
    if source.version:
        return _resolved(source, _version(source, api), api)
    newest, *others = _newest_first(source, api)
    found = _resolved(source, newest, api)
    if others and (older := _free(others)):
        found = replace(found, older=_older(source, found, older, api))
    may_ask = api.settings.tokens.for_url(api.settings.endpoints.civitai) is not None
    return found if found.older is None or may_ask or not found.early else found.older


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
        raise NotFoundError(f"{source.shown()}: CivitAI describes no such version.")
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
        raise NotFoundError(f"{source.shown()}: the model has no published version.")
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
    if mode in ("Archived", "TakenDown"):
        raise NotFoundError(f"{source.shown()}: CivitAI has {mode.lower()} this model.")
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
            f"{source.shown()}: this version has no such .safetensors file. Its files:"
            + ("" if files else " none"),
            choices=_listed(source, version, files),
        )
    file = sound[0]
    for scan in ("pickleScanResult", "virusScanResult"):
        if file.get(scan) == "Danger":
            raise RefusedError(f"{source.shown()}: CivitAI's scan calls {file.get('name')} unsafe.")
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
