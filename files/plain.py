"""Files that are no LoRA, under the same rules: a picture by link, a weight file that is pinned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ..errors import OfflineError, RefusedError
from .addresses import bare_url
from .download import Download, Remote
from .explain import Asked
from .lock import locked
from .net import Client
from .part import Part
from .pump import pump
from .settings import Settings

__all__ = ["fetch_file", "read_link"]

OK = 200


def read_link(
    url: str,
    *,
    settings: Settings,
    max_bytes: int,
    seconds: float,
    cancelled: Callable[[], bool],
) -> bytes:
    """Return what an address serves, kept in memory.

    Args:
        url: An https address.
        settings: The rules.
        max_bytes: More than this is refused.
        seconds: So long it may take in all.
        cancelled: Asked all the time, however silent the server is.

    Raises:
        FetchError: it cannot be had, or is too large; see `errors`.
    """
    asked = Asked(bare_url(url))

    def receive(stop: threading.Event) -> Iterator[bytes]:
        with Client(settings) as client, client.request("GET", url) as answer:
            if answer.status != OK:
                raise asked.failure(answer, settings)
            yield from answer.chunks(stop)

    pieces: list[bytes] = []
    size, end = 0, settings.monotonic() + seconds
    with closing(pump([receive], cancelled=cancelled)) as items:
        for chunk in items:
            if settings.monotonic() > end:
                raise OfflineError(
                    f"{asked.shown} has not come within {seconds:.0f} s. Use a smaller file, or "
                    "download it yourself."
                )
            if not chunk:
                continue
            size += len(chunk)
            if size > max_bytes:
                raise RefusedError(
                    f"{asked.shown} is larger than {max_bytes} bytes. Use a smaller file."
                )
            pieces.append(chunk)
    return b"".join(pieces)


def fetch_file(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    settings: Settings,
    progress: Callable[[int, int | None], None],
    cancelled: Callable[[], bool],
) -> None:
    """Download a safetensors file whose content is known, whole or not at all.

    It resumes an earlier try, and two processes fetch it once.

    Args:
        url: Where it is.
        target: Its place; the folder must exist.
        size: In bytes.
        sha256: Of its content.
        settings: The rules; a limit of sizes does not apply to what is pinned.
        progress: Told the bytes so far and in all.
        cancelled: Asked often.

    Raises:
        FetchError: it cannot be had; see `errors`.
    """
    lock = target.with_name(f".{target.name}.lock")
    with locked(lock, sleep=settings.sleep, cancelled=cancelled):
        if target.is_file():  # another process fetched it while this one waited
            return
        rules = replace(settings, max_bytes=max(size, settings.max_bytes))
        with Client(rules) as client:
            arrived = Download(
                Asked(bare_url(url)),
                Remote(url=url, size=size, sha256=sha256),
                Part(target.with_name(f".{target.stem}-{settings.apart}{target.suffix}")),
                client=client,
                room=lambda needed, _: rules.check_room(target.parent, needed),
                progress=progress,
                cancelled=cancelled,
            ).run()
        arrived.path.replace(target)
