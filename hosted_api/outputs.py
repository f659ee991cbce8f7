"""Where pictures go, and by which addresses clients get them.

Each lies in the state folder as `outputs/<job>/<attempt>-<number>.<ext>`, so that two attempts
never meet. Where a folder elsewhere is named, they are copied there too. A copy exists only while
the file here does: what is found here and belongs to no job tells what has to go there as well.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import parse_qsl

from ..errors import StoreError
from ..files.disk import disk_errors
from .folder import Folder
from .job import Job
from .links import Links
from .options import Options
from .served import type_of

DATA: Final = "data"

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NAME: Final = re.compile(r"([0-9]+)-[0-9]+\.[a-z0-9]{1,5}")
_SUFFIX: Final = re.compile(r"\.[a-z0-9]{1,5}")
_PATH: Final = re.compile(r"(/v1/outputs/([^/?]+)/([^/?]+))\?(.*)")

log = logging.getLogger(__name__)


class Outputs:
    """The pictures of all jobs.

    Args:
        options: what the administrator decides.
        links: signs addresses.
        base: gives the public address of this server, without a slash at its end.

    Raises:
        SettingsError: the folder elsewhere cannot be used.
    """

    def __init__(self, options: Options, links: Links, base: Callable[[], str]) -> None:
        self._options = options
        self._links = links
        self._base = base
        self._root = options.state / "outputs"
        self._away = Folder(options.outputs) if "://" in options.outputs else None
        self._clearing = ThreadPoolExecutor(1, "outputs")

    async def keep(self, job_id: str, attempt: int, number: int, name: str, data: bytes) -> str:
        """Write a picture, whole or not at all.

        Args:
            job_id: whose.
            attempt: which attempt made it.
            number: which of its pictures, from 0 on.
            name: as ComfyUI calls it; its ending is kept.
            data: the file.

        Returns:
            Its name for `Job.files`.

        Raises:
            NoRoomError: the disk is full.
            StoreError: it cannot be written.
        """
        ending = PurePath(name).suffix.lower()
        kept = f"{attempt}-{number}{ending if _SUFFIX.fullmatch(ending) else '.bin'}"
        await asyncio.to_thread(_write, self._folder(job_id) / kept, data)
        return kept

    async def publish(self, job_id: str, names: Sequence[str]) -> None:
        """Copy pictures to the folder elsewhere, if there is one.

        Raises:
            StoreError: it cannot be written to.
        """
        away = self._away
        if away is None:
            return
        here = self._folder(job_id)
        for name in names:
            await asyncio.to_thread(away.put, here / name, job_id, name)

    def addresses(self, job: Job, *, listed: bool) -> list[str]:
        """Return the addresses of a job's pictures.

        Args:
            job: the job.
            listed: it is one of many, so the pictures themselves do not go into the answer.
        """
        if self._away is not None:
            start = self._options.outputs_public or self._away.shown
            return [f"{start}/{job.id}/{name}" for name in job.files]
        if self._inline() and not listed:
            return [self._data(job, name) for name in job.files]
        return [self._link(job, name) for name in job.files]

    def path(self, job_id: str, name: str) -> Path | None:
        """Return where a picture lies that a link names; None where there is none."""
        if not _ID.fullmatch(job_id) or not _NAME.fullmatch(name):
            return None
        path = self._root / job_id / name
        return path if path.is_file() else None

    def find(self, text: str) -> Path | None:
        """Return where a picture lies that an input names by its signed address, else None."""
        match = _PATH.fullmatch(text.removeprefix(self._base()))
        if match is None or not self._links.check(match[1], dict(parse_qsl(match[4]))):
            return None
        return self.path(match[2], match[3])

    def drop(self, job_id: str, attempt: int | None = None) -> None:
        """Remove the pictures of a job, or those of one attempt alone.

        A folder elsewhere is cleared in a thread; what fails there is tried again by `sweep`.
        """
        folder = self._folder(job_id)
        if attempt is None:
            self._clear(folder, list(_within(folder)), whole=True)
        else:
            # The folder stays: the next attempt may be writing to it.
            gone = [path for path in _within(folder) if _attempt(path) == attempt]
            self._clear(folder, gone, whole=False)

    def sweep(self, known: Callable[[str], tuple[str, ...] | None]) -> None:
        """Remove what belongs to no job: what killed processes and attempts have left.

        It is for the start, while nothing runs.

        Args:
            known: gives the files of a job; None where there is no such job.
        """
        for folder in _within(self._root):
            files = known(folder.name) or ()
            gone = [path for path in _within(folder) if path.name not in files]
            self._clear(folder, gone, whole=True)

    def close(self) -> None:
        """Wait until the folder elsewhere is cleared."""
        self._clearing.shutdown()

    # --- parts ---

    def _inline(self) -> bool:
        how = self._options.outputs
        return how == DATA or (not how and not self._base().startswith("https:"))

    def _data(self, job: Job, name: str) -> str:
        path = self._folder(job.id) / name
        try:
            data, kind = path.read_bytes(), type_of(path)
        except OSError:  # it was taken away by hand: the link says that it is not there
            return self._link(job, name)
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"

    def _link(self, job: Job, name: str) -> str:
        # The same address each time, so that a browser need not fetch it again.
        until = (job.completed or job.deadline) + self._options.keep
        return self._base() + self._links.until(f"/v1/outputs/{job.id}/{name}", until)

    def _folder(self, job_id: str) -> Path:
        if not _ID.fullmatch(job_id):
            raise StoreError(
                "id: pictures are kept under it. Use letters, digits, - and _ only, 128 at most."
            )
        return self._root / job_id

    def _clear(self, folder: Path, paths: Sequence[Path], *, whole: bool) -> None:
        if self._away is None:
            _clear_here(folder, paths, whole=whole)
        else:
            self._clearing.submit(_clear_both, self._away, folder, paths, whole=whole)


def _clear_both(away: Folder, folder: Path, paths: Sequence[Path], *, whole: bool) -> None:
    """Remove copies, then the files: as long as a copy may be there, its file tells of it."""
    try:
        for path in paths:
            away.remove(folder.name, path.name)
        if whole:
            away.remove_folder(folder.name)
    except StoreError as error:
        log.warning("%s", error, extra={"prediction": folder.name})
        for path in paths:
            path.write_bytes(b"")  # the data goes; the names stay for the next start
    else:
        _clear_here(folder, paths, whole=whole)


def _clear_here(folder: Path, paths: Sequence[Path], *, whole: bool) -> None:
    try:
        for path in paths:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be cleared: %s", folder, error, extra={"prediction": folder.name})
    if whole:
        with contextlib.suppress(OSError):  # other files are in it, or it is none
            folder.rmdir()


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(data)
        fresh.replace(path)


def _attempt(path: Path) -> int | None:
    match = _NAME.fullmatch(path.name.removeprefix(".").removesuffix(".part"))
    return int(match[1]) if match else None


def _within(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder; nothing where there is none."""
    if folder.is_dir():
        yield from sorted(folder.iterdir())
