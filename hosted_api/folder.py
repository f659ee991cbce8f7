"""A folder elsewhere that pictures are copied to: whatever fsspec knows (s3://, gs://, file://...).

fsspec and the package of a protocol are imported only where an administrator names a folder.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import SettingsError, StoreError
from ..files.addresses import bare_url
from ..texts import one_line
from .served import type_of

_PACKAGES: Final = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
}
"""What brings a protocol, where its own message is not enough."""

_SAID: Final = 300
_SECRET: Final = 5
"""Letters from which on a value in an address may be one."""


class _FileSystem(Protocol):
    """The part of fsspec's file systems that is used."""

    def makedirs(self, path: str, exist_ok: bool) -> None: ...
    def put_file(self, lpath: str, rpath: str, **kind: str) -> None: ...
    def mv(self, path1: str, path2: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...


class Folder:
    """One folder; every method waits for it, so they are called in a thread.

    Args:
        address: as fsspec writes it.

    Attributes:
        shown: the address without who enters and with what, for others to read.

    Raises:
        SettingsError: fsspec, or what it needs for the protocol, is not installed; or the address
            is none.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self.shown = _shown(self._address)
        self._files, root = _opened(self._address)
        self._root = root.rstrip("/")
        # Where there is no true move, fsspec copies and deletes; a store of objects shows none
        # before it is whole, so it needs no other name first.
        base = importlib.import_module("fsspec.spec").AbstractFileSystem
        self._moves = type(self._files).mv is not base.mv
        self._s3 = self._address.startswith(("s3://", "s3a://"))

    def put(self, source: Path, folder: str, name: str) -> None:
        """Copy a file, whole or not at all where the file system can do that.

        Raises:
            StoreError: it cannot be written.
        """
        target = f"{self._root}/{folder}/{name}"
        fresh = f"{self._root}/{folder}/.{name}.part" if self._moves else target
        with self._errors("written to"):
            if self._moves:  # a store of objects has no folders, and would make a bucket
                self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)
            # S3 tells browsers what a picture is; s3fs asks Python, which knows webp from 3.13 on.
            kind = {"ContentType": type_of(source)} if self._s3 else {}
            self._files.put_file(str(source), fresh, **kind)
            if fresh != target:
                self._files.mv(fresh, target)

    def remove(self, folder: str, name: str) -> None:
        """Remove a file, and what a killed process left of it.

        Raises:
            StoreError: it is still there, as far as is known.
        """
        names = (name, f".{name}.part") if self._moves else (name,)
        with self._errors("cleared"):
            for each in names:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(f"{self._root}/{folder}/{each}")

    def remove_folder(self, folder: str) -> None:
        """Remove a folder if it is empty; a store of objects has none."""
        if self._moves:
            with contextlib.suppress(OSError):
                self._files.rmdir(f"{self._root}/{folder}")

    @contextlib.contextmanager
    def _errors(self, what: str) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:
            # Each file system raises errors of its own library.
            raise StoreError(
                f"--outputs {self.shown} cannot be {what}: {_said(error, self._address)}. "
                "Check the address, the permissions and the network."
            ) from error


def _shown(address: str) -> str:
    """Return an address without who enters and with what."""
    return re.sub(r"//[^/]*@", "//", bare_url(address))


def _said(error: Exception, address: str) -> str:
    """Return what an error says, without what is secret of the address, or a full stop at its end.

    Libraries write the address into their errors, whole or in parts, and callers read those.
    """
    said = str(error) or type(error).__name__
    query = address[len(bare_url(address)) :]
    values = [value for _, value in parse_qsl(query[1:]) if len(value) >= _SECRET]
    password = urlsplit(address).password or ""
    for secret in (query, password, unquote(password), *values):
        said = said.replace(secret, "...") if secret else said
    return one_line(said, _SAID).rstrip(".")


def _opened(address: str) -> tuple[_FileSystem, str]:
    shown, protocol = _shown(address), address.partition("://")[0]
    try:
        files, root = importlib.import_module("fsspec.core").url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        missing = package if error.name != "fsspec" else f"fsspec {package or ''}".strip()
        remedy = f"Run: python -m pip install {missing}" if missing else f"{_said(error, address)}."
        raise SettingsError(
            f"--outputs {shown} needs a package that is not installed. {remedy}"
        ) from error
    except Exception as error:
        raise SettingsError(
            f"--outputs {shown} cannot be used: {_said(error, address)}. Write data, link, "
            "or a folder such as s3://bucket/path."
        ) from error
    return cast("_FileSystem", files), str(root)
