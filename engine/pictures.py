"""Input pictures that are named by text: files of ComfyUI's folders, data: URIs and links."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import ImageError, RequestError
from ..ops.picture_file import FILE_LIMIT
from ..prediction.data_uri import check_data_uri, is_data_uri, read_data_uri
from .fetching import fetch_picture

_AT_ONCE: Final = 2**16
"""Longest data: URI that is decoded while a prompt is being queued, in characters."""

_FORMS = "give the name of a file in ComfyUI's input folder, a data: URI or an https link"


def read_source(field: str, source: str) -> bytes:
    """Return the bytes of the picture that source names.

    Args:
        field: "image" or "mask", for errors.
        source: what the field holds.

    Raises:
        RequestError: no such file, or not a form that is understood.
        ImageError: the link cannot be had, or the file is too large.
    """
    from ..errors import FetchError

    if is_data_uri(source):
        try:
            return read_data_uri(source)
        except ValueError as error:
            raise RequestError(field, source, _FORMS, str(error)) from error
    if is_link(source):
        try:
            return fetch_picture(source)
        except FetchError as error:
            raise ImageError(f"{field}: {error}") from error
    path = input_file(field, source)
    with path.open("rb") as stream:
        data = stream.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise ImageError(
            f"{field}: {path.name} has more than {FILE_LIMIT // 2**20} MB; save it as JPEG, or "
            f"connect it to input_{field}"
        )
    return data


def fingerprint(field: str, source: str) -> str:
    """Return a text that changes when the file behind source does. A link is fetched once.

    Args:
        field: "image" or "mask".
        source: what the widget holds, with the blanks that a request loses. A file that is not
            there need not be: it may stand beside a connected picture.
    """
    source = source.strip()
    if not source or is_data_uri(source) or is_link(source):
        return ""
    try:
        state = input_file(field, source).stat()
    except (RequestError, OSError):
        return "missing"
    return f"{state.st_mtime_ns}-{state.st_size}"


def check_source(field: str, source: str) -> None:
    """Raise what the form of source alone tells: ComfyUI answers nobody else meanwhile.

    Raises:
        RequestError: no such file, or not a form that is understood.
    """
    if is_data_uri(source):
        try:
            (read_data_uri if len(source) <= _AT_ONCE else check_data_uri)(source)
        except ValueError as error:
            raise RequestError(field, source, _FORMS, str(error)) from error
    elif not is_link(source):
        input_file(field, source)


def is_link(source: str) -> bool:
    """Tell whether source is a web address."""
    return source[:8].lower().startswith(("https://", "http://"))


def input_file(field: str, name: str) -> Path:
    """Return where the file called name lies: in ComfyUI's input folder, or "x.png [output]".

    Raises:
        RequestError: it is not there, or name leads out of ComfyUI's folders.
    """
    import folder_paths

    folders = (
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    )
    try:
        path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    except ValueError as error:  # newer versions refuse to leave the folder themselves
        raise RequestError(field, name, _FORMS, "lies outside of ComfyUI's folders") from error
    if not any(path.is_relative_to(Path(folder).resolve()) for folder in folders):
        raise RequestError(field, name, _FORMS, "lies outside of ComfyUI's folders")
    if not _is_file(path):
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise RequestError(field, name, _FORMS, f"{shown} is not in ComfyUI's input folder")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False
