"""Files of clients: `POST /v1/files` and what belongs to it.

A file lies in the state folder as `uploads/<id>`; what is known of it is in the store. It is
written under another name first, so that what has its own name is whole.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from ..errors import CallError, NoRoomError
from ..files.disk import disk_errors
from . import views
from .job import new_id
from .links import Links
from .options import Options
from .receive import Arrived, receive
from .served import file_response
from .store import Store, Upload

ROUTE: Final = "/v1/files"
PAGE: Final = 100
"""Files in one answer."""

_PATH: Final = re.compile(r"/v1/files/([a-z0-9]{26})(?:/content)?(?:\?.*)?")
_PART: Final = ".part"
_FORM: Final = 2**20
"""Bytes of a body that are not the file's."""


class Uploads:
    """The files of all clients, and the handlers of their routes.

    Args:
        options: what the administrator decides.
        store: knows the files.
        links: signs addresses.
        base: gives the public address of this server, without a slash at its end.
        owner_of: gives whose a request is.
        clock: seconds since 1970.
        stored: told the bytes of each file that is kept.
    """

    def __init__(
        self, options: Options, store: Store, links: Links, base: Callable[[], str],
        owner_of: Callable[[web.Request], str], clock: Callable[[], float],
        stored: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self._options = options
        self._store = store
        self._links = links
        self._base = base
        self._owner_of = owner_of
        self._clock = clock
        self._stored = stored
        self._folder = options.state / "uploads"
        self._arriving: dict[str, int] = {}

    # --- handlers ---

    async def create(self, request: web.Request) -> web.Response:
        """Answer `POST /v1/files`: keep a file.

        Raises:
            CallError: it is too large, there is no room, or the request is no such one.
            StoreError: the disk does not let us.
        """
        owner, upload_id = self._owner_of(request), new_id()
        self._check_size(max(0, (request.content_length or 0) - _FORM))
        path = self._folder / upload_id
        fresh = path.with_suffix(_PART)
        self._arriving[upload_id] = 0
        try:
            with disk_errors(path):
                self._folder.mkdir(parents=True, exist_ok=True)
            arrived = await receive(
                request, fresh, room=lambda size: self._check_room(upload_id, size)
            )
            with disk_errors(path):
                fresh.replace(path)
            upload = self._known(upload_id, owner, arrived, self._options.keep_uploads)
            self._add(upload)
        except NoRoomError as error:
            raise CallError(507, str(error), title="No room") from error
        finally:
            fresh.unlink(missing_ok=True)
            del self._arriving[upload_id]
        return web.json_response(self._shown(upload), status=201)

    async def listed(self, request: web.Request) -> web.Response:
        """Answer `GET /v1/files`: the caller's files, the newest first."""
        now, after = self._clock(), request.query.get("cursor", "")
        files = [
            file for file in self._store.uploads(self._owner_of(request)) if file.expires > now
        ]
        ids = [file.id for file in files]
        first = ids.index(after) + 1 if after in ids else 0
        page, rest = files[first : first + PAGE], files[first + PAGE :]
        more = f"{self._base()}{ROUTE}?cursor={page[-1].id}" if rest else None
        return web.json_response(views.page([self._shown(file) for file in page], more))

    async def get(self, request: web.Request) -> web.Response:
        """Answer `GET /v1/files/{id}`: what is known of a file.

        Raises:
            CallError: the caller has no such file.
        """
        return web.json_response(self._shown(self._own(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Answer `DELETE /v1/files/{id}`: forget a file.

        Raises:
            CallError: the caller has no such file.
        """
        upload = self._own(request)
        self._store.delete_upload(upload.id)
        self._remove(upload.id)
        return web.Response(status=204)

    async def content(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /v1/files/{id}/content` with the file; whoever has the link may read it.

        Raises:
            CallError: the link is not ours or has expired, or the file has gone.
        """
        upload_id = request.match_info["id"]
        upload = self._store.upload(upload_id)
        signed = self._links.check(f"{ROUTE}/{upload_id}/content", request.query)
        if upload is None or not signed or self._lies(upload) is None:
            raise _missing()
        return file_response(self._folder / upload.id, upload.content_type, upload.name)

    # --- for the others ---

    def keep(self, owner: str, name: str, data: bytes, seconds: float) -> str:
        """Keep a picture that came within a call, and return its address.

        Args:
            owner: whose.
            name: of the input.
            data: the file.
            seconds: the time of its job; it is kept as long as that job's own data.

        Raises:
            CallError: it is too large, or there is no room.
            StoreError: the disk does not let us.
        """
        upload_id = new_id()
        path = self._folder / upload_id
        arrived = Arrived(path.with_suffix(_PART), name, whole=True)
        try:
            self._check_room(upload_id, len(data))
            with disk_errors(path):
                self._folder.mkdir(parents=True, exist_ok=True)
                with arrived.path.open("wb") as file:
                    arrived.add(file, data)
                arrived.path.replace(path)
        finally:
            arrived.path.unlink(missing_ok=True)
            self._arriving.pop(upload_id, None)
        arrived.size = len(data)
        self._add(self._known(upload_id, owner, arrived, seconds + self._options.keep))
        return f"{self._base()}{ROUTE}/{upload_id}"

    def find(self, owner: str, text: str) -> Path | None:
        """Return where a file lies that an input names by its address; None for any other text.

        Args:
            owner: whose input it is; files of others are none.
            text: `urls.get` of a file, or the link to its content, whole or from `/v1` on.
        """
        match = _PATH.fullmatch(text.removeprefix(self._base()))
        upload = self._store.upload(match[1]) if match else None
        return self._lies(upload) if upload is not None and upload.owner == owner else None

    def sweep(self, now: float) -> None:
        """Remove what has expired, and what killed processes have left."""
        for upload_id in self._store.expired_uploads(now):
            self._remove(upload_id)
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.stem not in self._arriving and self._store.upload(path.name) is None:
                self._remove(path.name)

    # --- parts ---

    def _check_size(self, size: int) -> None:
        if size > self._options.upload:
            raise CallError(
                413,
                f"content: the file is larger than {self._options.upload} bytes, which is the most "
                "here. Send a smaller one, or give its address.",
            )

    def _check_room(self, upload_id: str, size: int) -> None:
        """Count the bytes of a file that is arriving; all files together have a limit too."""
        self._check_size(size)
        self._arriving[upload_id] = size
        if self._store.uploaded_bytes() + sum(self._arriving.values()) > self._options.uploads:
            raise CallError(
                507,
                f"content: all files together may have {self._options.uploads} bytes. Delete some "
                "with DELETE /v1/files/{id}, or wait until older ones expire.",
                title="No room",
            )

    def _known(self, upload_id: str, owner: str, arrived: Arrived, seconds: float) -> Upload:
        now = self._clock()
        return Upload(
            id=upload_id,
            owner=owner,
            name=arrived.name,
            content_type=arrived.kind,
            size=arrived.size,
            md5=arrived.md5,
            sha256=arrived.sha256,
            metadata=arrived.metadata,
            created=now,
            expires=now + seconds,
        )

    def _add(self, upload: Upload) -> None:
        self._store.add_upload(upload)
        if self._stored is not None:
            self._stored(upload.size)

    def _shown(self, upload: Upload) -> views.Json:
        """Return a file as the hosted API shows it; the clients want every key."""
        path = f"{ROUTE}/{upload.id}"
        content = self._links.until(f"{path}/content", upload.expires)
        return {
            "id": upload.id,
            "name": upload.name,
            "content_type": upload.content_type,
            "size": upload.size,
            "etag": upload.md5,
            "checksums": {"sha256": upload.sha256, "md5": upload.md5},
            "metadata": upload.metadata,
            "created_at": views.stamp(upload.created),
            "expires_at": views.stamp(upload.expires),
            "urls": {"get": self._base() + path, "content": self._base() + content},
        }

    def _own(self, request: web.Request) -> Upload:
        upload = self._store.upload(request.match_info["id"])
        if (
            upload is None
            or upload.owner != self._owner_of(request)
            or upload.expires <= self._clock()
        ):
            raise _missing()
        return upload

    def _lies(self, upload: Upload) -> Path | None:
        path = self._folder / upload.id
        return path if upload.expires > self._clock() and path.is_file() else None

    def _remove(self, name: str) -> None:
        # On Windows a file stays while somebody reads it; the next sweep takes it.
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)


def _missing() -> CallError:
    return CallError(
        404,
        "The requested file could not be found. Send it again: files expire.",
        title="Not found",
    )
