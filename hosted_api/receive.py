"""A file that a client sends as multipart/form-data, on its way to the disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http import HttpProcessingError

from ..errors import CallError
from ..files.disk import disk_errors
from ..texts import one_line
from .served import START, content_type

BLOCK: Final = 2**20
"""Bytes that are written at once."""

MOST_TEXT: Final = 64 * 2**10
"""Bytes of the longest field beside the file, `metadata` included."""
_KEY: Final = re.compile(r"metadata\[([^\[\]]{1,64})\]")
"""How a client of the service, Python 2.x, names what its metadata holds."""

_LONGEST_NAME: Final = 255
_MOST_PARTS: Final = 16


@dataclass
class Arrived:
    """What has been sent.

    Attributes:
        path: where it goes.
        name: what the client calls it.
        size: bytes so far.
        start: the first of them.
        metadata: what the client wants to be kept with it.
        whole: whether a file has come, and all of it.
    """

    path: Path
    name: str = ""
    size: int = 0
    start: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    whole: bool = False
    _md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False), repr=False)
    _sha256: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def kind(self) -> str:
        """What it is by its bytes."""
        return content_type(self.start)

    @property
    def md5(self) -> str:
        """Its hash, which a client may compare."""
        return str(self._md5.hexdigest())

    @property
    def sha256(self) -> str:
        """Its hash, which a client may compare."""
        return str(self._sha256.hexdigest())

    def add(self, file: BinaryIO, data: bytes) -> None:
        """Write the next bytes."""
        with disk_errors(self.path):
            file.write(data)
        self.start = (self.start + data[:START])[:START]
        self._md5.update(data)
        self._sha256.update(data)


async def receive(request: web.Request, path: Path, *, room: Callable[[int], None]) -> Arrived:
    """Write the file of a request to the disk.

    Args:
        request: the request; parts of it come in any order.
        path: where it goes; the folder exists.
        room: told how many bytes there are, each time before more are written; raises if these are
            too many.

    Raises:
        CallError: it is no such request, or what `room` raises.
        NoRoomError: the disk is full.
        StoreError: the disk does not let us.
    """
    form = request.headers.get("Content-Type", "")
    if request.content_type != "multipart/form-data" or "boundary" not in form:
        raise CallError(415, "Send multipart/form-data with the file in a part named content.")
    arrived = Arrived(path)
    try:
        await _parts(await request.multipart(), arrived, room)
    except CallError:
        raise
    except (ValueError, HttpProcessingError):
        raise CallError(
            400, "The body is no sound multipart/form-data. Send it as the clients do."
        ) from None
    if not arrived.whole:
        raise CallError(422, "content: the file is missing; send it as a part of that name.")
    return arrived


async def _parts(reader: MultipartReader, arrived: Arrived, room: Callable[[int], None]) -> None:
    named = ""
    for _ in range(_MOST_PARTS):
        part = await reader.next()
        if not isinstance(part, BodyPartReader):
            break  # the end; or parts within a part, which no client sends
        if part.name == "content":
            arrived.name = _name(part.filename or "")
            await _file(part, arrived, room)
        elif part.name == "metadata":
            arrived.metadata |= _metadata(await _text(part))
        elif (key := _KEY.fullmatch(part.name or "")) is not None:
            arrived.metadata[key[1]] = _value(await _text(part))
        elif part.name == "filename":
            named = (await _text(part)).decode(errors="replace")
        else:
            await _text(part)
    if named:
        arrived.name = _name(named)


async def _file(part: BodyPartReader, arrived: Arrived, room: Callable[[int], None]) -> None:
    if arrived.whole:
        raise CallError(422, "content: send one file in a call.")
    with arrived.path.open("wb") as file:
        block, chunk = bytearray(), await part.read_chunk()
        while chunk:
            block += chunk
            chunk = await part.read_chunk()
            if not chunk or len(block) >= BLOCK:
                arrived.size += len(block)
                room(arrived.size)
                await asyncio.to_thread(arrived.add, file, bytes(block))
                block.clear()
    arrived.whole = True


async def _text(part: BodyPartReader) -> bytes:
    text = b""
    while chunk := await part.read_chunk():
        text += chunk
        if len(text) > MOST_TEXT:
            raise CallError(
                413, f"A field beside the file is longer than {MOST_TEXT} bytes. Send less."
            )
    return text


def _metadata(text: bytes) -> dict[str, Any]:
    try:
        read: object = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise CallError(422, "metadata: send a JSON object.")
    return cast("dict[str, Any]", read)


def _value(text: bytes) -> Any:
    """Return what a field of its own says: a number or a word of JSON, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="replace")


def _name(given: str) -> str:
    """Return the last part of a name, fit to be shown."""
    last = PurePosixPath(given.replace("\\", "/")).name
    return one_line(last, _LONGEST_NAME) or "file"
