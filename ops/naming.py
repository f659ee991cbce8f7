"""File names under the output folder: which prefix is allowed, and how a name is claimed.

A file is written whole under a temporary name and then claims its final name without ever
replacing one, so servers that share a folder never clash. Imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from ..errors import SaveError

DEFAULT_PREFIX = "flux-hotswap"
MAX_PART_BYTES = 200
"""Longest folder or file stem; leaves room for the counter and the extension."""

MAX_PREFIX_BYTES = 1000
"""Longest prefix: systems take paths of about 4,000, and ComfyUI fills in more."""

MAX_FOLDERS = 32
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?")
_BROKEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE = re.compile(r'[<>:"|?*]')
_DATE = re.compile(r"%date:([^%]+)%")
_DATE_PART = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")
_LAST_COUNTER = 10**8
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_ABANDONED = 24 * 3600.0


def clean_prefix(prefix: str, now: datetime) -> str:
    r"""Return a prefix that names a place inside the output folder on every system.

    `%date:yyyy-MM-dd%` is filled in as the graph editor does; ComfyUI's own `%year%`, `%width%` and
    so on stay for ComfyUI. `\` separates folders as `/` does, characters that Windows forbids
    become `_`, dots and spaces at the end of a part go, an empty prefix becomes the default.

    Raises:
        SaveError: the prefix leaves the output folder, is absolute, names a drive or a Windows
            device, holds control characters, a part too long for a file name or more folders than
            anyone needs.
    """
    if len(prefix) > MAX_PREFIX_BYTES:
        raise _too_long(prefix)
    text = _expand_dates(prefix, now).strip()
    if _BROKEN.search(text):
        raise _refuse(prefix, "it holds control or broken characters", "Remove them")
    text = text.replace("\\", "/")
    if text.startswith("/"):
        raise _refuse(prefix, "it is an absolute path", "Start with a folder or file name")
    if re.match(r"[A-Za-z]:", text):
        raise _refuse(prefix, "it names a drive", "Start with a folder or file name")
    parts = [_clean_part(part, prefix) for part in text.split("/")]
    found = "/".join(part for part in parts if part) or DEFAULT_PREFIX
    if len(found.encode()) > MAX_PREFIX_BYTES:
        raise _too_long(prefix)
    if found.count("/") > MAX_FOLDERS:
        raise _refuse(prefix, f"it names more than {MAX_FOLDERS} folders", "Use fewer")
    return found


def file_stem(filename: str, index: int) -> str:
    """Fill in `%batch_num%`, the picture's place in its batch, counted from 0."""
    return filename.replace("%batch_num%", str(index))


def write_batch(
    folder: Path, files: Sequence[tuple[str, bytes]], *, extension: str, counter: int
) -> list[Path]:
    """Write files as `{stem}_{counter:05}_.{extension}`, never over an existing one.

    Every file is complete under a temporary name before the first claims its own. The counter
    steps on over names that are taken, also by another process.

    Args:
        folder: where to write; made when missing.
        files: stem and bytes of each, in order.
        extension: without a dot.
        counter: the first number to try.

    Returns:
        The paths, in the order given.

    Raises:
        SaveError: the folder cannot be written or the disk is full. Nothing temporary stays.
    """
    temporary: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _, data in files:
            temporary.append(folder / f".{secrets.token_hex(8)}.tmp")
            with temporary[-1].open("xb") as file:
                file.write(data)
        _sweep(temporary[0])
        paths: list[Path] = []
        for (stem, _), whole in zip(files, temporary, strict=True):
            path, counter = _claim(whole, folder, stem, extension, counter)
            paths.append(path)
            counter += 1
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(
            f"cannot write to the folder {folder.name!r} of the output folder: {reason}. "
            "Check its permissions and the free space."
        ) from error
    finally:
        _remove(temporary)
    return paths


def _claim(whole: Path, folder: Path, stem: str, extension: str, counter: int) -> tuple[Path, int]:
    while counter < _LAST_COUNTER:
        path = folder / f"{stem}_{counter:05}_.{extension}"
        try:
            _move_without_replacing(whole, path)
        except FileExistsError:
            counter += 1
        else:
            return path, counter
    raise SaveError(f"no number is left for {stem!r}. Choose another filename_prefix.")


def _move_without_replacing(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links
        target.open("xb").close()  # whoever creates the name owns it
        try:
            source.replace(target)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def _sweep(fresh: Path) -> None:
    """Remove temporary files of processes that were killed a day ago or earlier.

    Args:
        fresh: a file that was written just now; its time is the disk's, whatever our clock says.
    """
    now = fresh.stat().st_mtime
    for path in fresh.parent.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if _TEMPORARY.fullmatch(path.name) and now - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing was
            path.unlink()


def _clean_part(part: str, prefix: str) -> str:
    part = part.strip()
    if part == "..":
        raise _refuse(prefix, "'..' leaves the output folder", "Remove it")
    part = _UNSAFE.sub("_", part).rstrip(". ")
    if _RESERVED.fullmatch(part):
        raise _refuse(prefix, f"{part!r} is a device name on Windows", "Choose another name")
    if len(part.encode()) > MAX_PART_BYTES:
        raise _refuse(
            prefix, f"a part is longer than {MAX_PART_BYTES} bytes", "Choose a shorter name"
        )
    return part


def _expand_dates(prefix: str, now: datetime) -> str:
    return _DATE.sub(lambda m: _DATE_PART.sub(lambda p: _date_part(p[0], now), m[1]), prefix)


def _date_part(pattern: str, now: datetime) -> str:
    if pattern[0] == "y":
        return f"{now.year:04}"[-len(pattern) :]
    value = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}
    return str(value[pattern[0]]).zfill(len(pattern))


def _too_long(prefix: str) -> SaveError:
    reason = f"it is longer than {MAX_PREFIX_BYTES} bytes"
    return _refuse(prefix, reason, "Choose a shorter name")


def _refuse(prefix: str, reason: str, remedy: str) -> SaveError:
    return SaveError(f"filename_prefix {prefix[:120]!r:.120} cannot be used: {reason}. {remedy}.")
