"""Save a batch of pictures as files: encode, write, claim names, say what was done.

Imports the encoders of this folder, never comfy: the folder and the counter are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .encode import Encoded, Format, ImageBHWC, encode_batch
from .metadata import Texts
from .naming import file_stem, write_batch


@dataclass(frozen=True)
class Place:
    """Where files go, as ComfyUI's `folder_paths.get_save_image_path` gives it.

    Attributes:
        folder: absolute, inside the output folder.
        filename: the stem, in which `%batch_num%` is not filled in yet.
        counter: the first number that looked free.
        subfolder: the folder's path below the output folder.
    """

    folder: Path
    filename: str
    counter: int
    subfolder: str


@dataclass(frozen=True)
class Saved:
    """The files of one batch, in batch order.

    Attributes:
        paths: where the files are.
        images: one entry a file, as ComfyUI's history and `/view` expect.
        report: what was saved and what had to be left out, as text.
    """

    paths: tuple[Path, ...]
    images: list[dict[str, str]]
    report: str

    @property
    def uris(self) -> list[str]:
        """One `file:` URI a picture."""
        return [path.absolute().as_uri() for path in self.paths]


def save_batch(
    images: ImageBHWC, fmt: Format, quality: int, *, texts: Texts, place: Place
) -> Saved:
    """Encode a batch in parallel and write it; either every picture can be encoded or none is kept.

    Args:
        images: [B,H,W,C] 0..1, any float type. Not modified.
        fmt: webp, jpg or png; also the file extension.
        quality: 0 is lowest, 100 best. Not used for png.
        texts: what to embed in every picture.
        place: where the files go.

    Raises:
        SaveError: a picture cannot be encoded or the folder cannot be written.
    """
    encoded = encode_batch(images, fmt, quality, texts)
    files = [(file_stem(place.filename, i), item.data) for i, item in enumerate(encoded)]
    paths = write_batch(place.folder, files, extension=fmt, counter=place.counter)
    entries = [
        {"filename": path.name, "subfolder": place.subfolder, "type": "output"} for path in paths
    ]
    return Saved(tuple(paths), entries, _report(entries, encoded, fmt, quality))


def _report(
    entries: list[dict[str, str]], encoded: list[Encoded], fmt: Format, quality: int
) -> str:
    kind = fmt if fmt == "png" else f"{fmt}, quality {quality}"
    lines = [f"{len(encoded)} saved as {kind}"]
    for entry, item in zip(entries, encoded, strict=True):
        name = "/".join(filter(None, (entry["subfolder"].replace("\\", "/"), entry["filename"])))
        lines.append(f"{name}: {item.width}x{item.height}, {len(item.data)} bytes")
    lines += [f"warning: {text}" for text in _each_once(encoded)]
    return "\n".join(lines)


def _each_once(encoded: list[Encoded]) -> Mapping[str, None]:
    return dict.fromkeys(text for item in encoded for text in item.warnings)
