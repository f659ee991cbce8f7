"""Which weight files the hosted check needs, where they come from, and that they are those.

Fetching is an argument: this module opens no connection. A file is used only if its SHA-256 is the
pinned one, so a mirror or a copy made by hand is as good as the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...errors import WeightsError
from ...files.disk import hash_of

FOLDER = "safety_checker"
"""Folder category below ComfyUI's models folder."""


@dataclass(frozen=True)
class WeightFile:
    """One file, pinned.

    Attributes:
        name: file name below the models folder.
        repo: repository on Hugging Face.
        revision: commit.
        path: the file's path there.
        sha256: hash of its content.
        size: bytes.
    """

    name: str
    repo: str
    revision: str
    path: str
    sha256: str
    size: int

    @property
    def url(self) -> str:
        """Where it can be downloaded."""
        return self.url_at("https://huggingface.co")

    def url_at(self, hub: str) -> str:
        """Where it can be downloaded from another hub, such as a mirror."""
        return f"{hub}/{self.repo}/resolve/{self.revision}/{self.path}"


Fetch = Callable[[WeightFile, Path], None]
"""Downloads a file to a path, whole or not at all."""

FILES: Mapping[str, WeightFile] = {
    # The half-precision safetensors form of CompVis/stable-diffusion-safety-checker, whose own
    # main branch has only a pickle. The same bytes are its pull request 41.
    "compvis": WeightFile(
        name="compvis-safety-checker.safetensors",
        repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        path="safety_checker/model.fp16.safetensors",
        sha256="08902f19b1cfebd7c989f152fc0507bef6898c706a91d666509383122324b511",
        size=608_018_440,
    ),
    "falcon": WeightFile(
        name="falconsai-nsfw-image-detection.safetensors",
        repo="Falconsai/nsfw_image_detection",
        revision="96cb0d0342c7afb80cab76ecc58b265fa44da256",
        path="model.safetensors",
        sha256="97b2ce64ec146884b37f98ee7944ca4891aa72f6827dc0cb10684a1cbecd5830",
        size=343_223_968,
    ),
}


def locate_or_fetch(
    name: str,
    folders: Sequence[Path],
    fetch: Fetch | None,
    *,
    files: Mapping[str, WeightFile] = FILES,
) -> Path:
    """Return a weight file whose content is the pinned one, fetching it when missing.

    Args:
        name: key of `files`.
        folders: where it may lie; it is fetched into the first.
        fetch: downloads it, or None when nothing may be downloaded. Its OSErrors become
            WeightsError, other errors are passed on.
        files: the table.

    Raises:
        WeightsError: missing and not to be had, or another content than the pinned one.
    """
    file = files[name]
    for folder in folders:
        if (path := folder / file.name).is_file():
            return _verified(path, file)
    target = folders[0] / file.name
    if fetch is None:
        raise _missing(file, target, "nothing may be downloaded")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch(file, target)
        if not target.is_file():
            raise FileNotFoundError("the download left no file")
    except OSError as error:
        raise _missing(file, target, f"the download failed: {error!s:.200}") from error
    return _verified(target, file)


def _verified(path: Path, file: WeightFile) -> Path:
    size = path.stat().st_size
    if size != file.size:
        raise _wrong(path, file, f"{size} bytes instead of {file.size}")
    digest = _digest(path, size, path.stat().st_mtime_ns)
    if digest != file.sha256:
        raise _wrong(path, file, f"SHA-256 {digest} instead of {file.sha256}")
    return path


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - size and time are the key
    """Hash a file; once as long as it stays the same."""
    return hash_of(path)


def _missing(file: WeightFile, target: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"The safety checker's file {file.name} is missing and {reason}. Download {file.url} "
        f"({file.size / 1e6:.0f} MB), name it {file.name} and put it into {target.parent}. "
        "No picture passes unchecked."
    )


def _wrong(path: Path, file: WeightFile, problem: str) -> WeightsError:
    return WeightsError(
        f"The safety checker's file {path} is not the right one: it has {problem}. Delete it so "
        f"that it is fetched again, or replace it by {file.url}. No picture passes unchecked."
    )
