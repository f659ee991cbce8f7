"""CivitAI: a model page to the version, the file and the download address that belong to it."""

from __future__ import annotations

import re
from typing import Any, cast

from .api import Api, Resolved, rows, table
from .errors import NotFoundError, RefusedError
from .source import CivitAI

__all__ = ["resolve"]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LORA_TYPES = {"lora", "locon", "dora", "lycoris"}


def resolve(source: CivitAI, api: Api) -> Resolved:
    """Ask the API for the version and its file.

    Raises:
        FetchError: there is none, it is not a LoRA, or the service cannot be reached.
    """
    version = _version(source, api) if source.version else _newest(source, api)
    file = _file(source, version)
    warnings: list[str] = []
    base = str(version.get("baseModel") or "")
    if base and not base.lower().startswith("flux"):
        warnings.append(f"{source.shown()}: this LoRA was made for {base}, not for FLUX.")
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
    )


def _version(source: CivitAI, api: Api) -> dict[str, Any]:
    url = f"{api.settings.endpoints.civitai}/api/v1/model-versions/{source.version}"
    version = table(api.json(url)[0])
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


def _newest(source: CivitAI, api: Api) -> dict[str, Any]:
    """The first version made for FLUX; the API lists the newest first."""
    url = f"{api.settings.endpoints.civitai}/api/v1/models/{source.model}"
    model = table(api.json(url)[0])
    _is_lora(source, model)
    versions = [v for v in rows(model.get("modelVersions")) if isinstance(v.get("id"), int)]
    if not versions:
        raise NotFoundError(f"{source.shown()}: the model has no published version.")
    flux = [v for v in versions if str(v.get("baseModel") or "").lower().startswith("flux")]
    return (flux or versions)[0]


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
        names = ", ".join(f"{f.get('name')} (fileId={f['id']})" for f in files) or "none"
        raise NotFoundError(
            f"{source.shown()}: this version has no such .safetensors file. Its files: {names}"
        )
    file = sound[0]
    for scan in ("pickleScanResult", "virusScanResult"):
        if file.get(scan) == "Danger":
            raise RefusedError(f"{source.shown()}: CivitAI's scan calls {file.get('name')} unsafe.")
    return file


def _is_safetensors(file: dict[str, Any]) -> bool:
    """Whether it holds the weights; a version can also carry training data or a config."""
    named = str(file.get("name") or "").lower().endswith(".safetensors")
    form = str(table(file.get("metadata")).get("format") or "").lower()
    return (named or form == "safetensor") and file.get("type", "Model") in (
        "Model",
        "Pruned Model",
    )
