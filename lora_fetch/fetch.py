"""From a line of text to a checked file on disk: parse, look in the store, resolve, download."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import (
    BadFileError,
    CancelledError,
    FetchError,
    NoRoomError,
    NotAuthorisedError,
    NotFoundError,
    StoreError,
)
from ..files import header
from ..files.addresses import bare_url
from ..files.download import Arrived, Download
from ..files.net import Client
from ..files.part import FileSink, Part
from ..files.settings import Settings
from ..files.tar import unpack
from ..files.validators import MAX_STATE
from ..texts import one_line, trigger_words
from .api import Api, Resolved
from .index import Entry
from .parser import parse
from .services import SERVICES
from .services.data import DataURI
from .services.local import LocalFile
from .source import Service, Source
from .store import Store, mark_of

__all__ = ["Fetched", "fetch"]

FOREVER = float(2**53)
MAX_NAME = 255
MAX_WARNING = 1000
MAX_CONFIG = 2**20
_TAR_MARK = slice(257, 262)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A LoRA file that is on disk and sound.

    Attributes:
        path: The file.
        source: The source in its canonical spelling, without secrets.
        sha256: Of the file's bytes.
        size: In bytes.
        name: The file's name at its source.
        trigger_words: What the source says to put into the prompt.
        revision: The state of a moving name that this is.
        from_cache: Nothing was downloaded.
        warnings: What the user should know, ready to show.
    """

    path: Path
    source: str
    sha256: str
    size: int
    name: str
    trigger_words: tuple[str, ...] = ()
    revision: str | None = None
    from_cache: bool = False
    warnings: tuple[str, ...] = ()


def fetch(
    text: str,
    *,
    store: Store,
    settings: Settings,
    progress: Callable[[int, int | None], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    services: Sequence[Service] = SERVICES,
) -> Fetched:
    """Make sure that the LoRA is on disk, and say where.

    Args:
        text: A source in any of the forms that `parse` reads.
        store: Where files are kept.
        settings: The rules.
        progress: Told the bytes so far and in all (None while unknown), a few times a second.
        cancelled: Asked many times a second; return True to stop.
        services: Whose sources are known.

    Raises:
        FetchError: of a kind that says what went wrong; see `errors`.
    """
    source = parse(text, services)
    if isinstance(source, LocalFile):
        return _local(source, store)
    job = _Job(
        source=source,
        store=store,
        settings=settings,
        progress=progress or _silent,
        cancelled=cancelled or _never,
    )
    return job.run()


@dataclass(frozen=True)
class _Job:
    """One source that lives elsewhere."""

    source: Source
    store: Store
    settings: Settings
    progress: Callable[[int, int | None], None]
    cancelled: Callable[[], bool]

    def run(self) -> Fetched:
        """Answer from the store, or fetch under the source's lock."""
        entry = self.store.find(self.source)
        if entry is not None and self._settled(entry) and self.store.touch(self.source, entry):
            return self._hit(entry)
        try:
            with self.store.lock(self.source, cancelled=self.cancelled):
                return self._alone()
        except (StoreError, NoRoomError) as error:
            if entry is None or self.store.find(self.source) is None:
                raise
            self.store.touch(self.source, entry)
            return self._hit(entry, _could_not_look(error))  # a folder that can only be read

    def _alone(self) -> Fetched:
        """Look once more, now that nobody else fetches the source, and fetch it."""
        entry = self.store.find(self.source)
        if entry is not None and self._settled(entry) and self.store.touch(self.source, entry):
            return self._hit(entry)
        if isinstance(self.source, DataURI):
            return self._unpack(self.source)
        with Client(self.settings) as client:
            if entry is not None:
                found = self._recheck(entry, client)
            else:
                found = self._newest(self._resolve(client), client)
            return replace(found, warnings=(*found.warnings, *client.warnings()))

    def _settled(self, entry: Entry) -> bool:
        """Whether the entry may be used without asking its source."""
        left = entry.check_after - self.settings.clock()
        # Later than any look-up may be planned: the clock was wrong then.
        return not self.source.moving or 0 < left <= self._longest_wait()

    def _longest_wait(self) -> float:
        return max(self.settings.recheck_after, self.settings.retry_check_after)

    def _hit(self, entry: Entry, *warnings: str) -> Fetched:
        return _fetched(self.store, entry, from_cache=True, warnings=warnings)

    def _resolve(self, client: Client, *, probe: bool = False) -> Resolved:
        api = Api(self.source.asked(), client, self.cancelled)
        return self.source.resolve(api, probe=probe)

    def _recheck(self, entry: Entry, client: Client) -> Fetched:
        """See whether a moving name means something new; keep the old file when that fails."""
        now = self.settings.clock()
        try:
            resolved = self._resolve(client, probe=True)
            if not _same(entry, resolved):
                return self._newest(resolved, client, entry)
            if mark_of(self._config(resolved, client)) != entry.config:
                return self._newest(resolved, client, entry)
        except CancelledError:
            raise
        except FetchError as error:
            kept = self._used(check_after=now + self.settings.retry_check_after)
            if kept is None or self.store.find(self.source) is None:  # evicted meanwhile
                raise
            return self._hit(kept, _could_not_look(error))
        return self._still(entry, resolved, client)

    def _used(self, **values: object) -> Entry | None:
        """Note that the entry is used and what was found out; None if it is not there any more."""
        return self.store.update(self.source, used=self.settings.clock(), **values)

    def _still(self, entry: Entry, resolved: Resolved, client: Client) -> Fetched:
        """The file that is here is the one that the source names."""
        found = self._used(
            check_after=self.settings.clock() + self.settings.recheck_after,
            revision=resolved.revision or entry.revision,
        )
        if found is None:  # evicted meanwhile to make room for another
            return self._newest(resolved, client)
        return self._hit(found, *resolved.warnings)

    def _newest(self, resolved: Resolved, client: Client, entry: Entry | None = None) -> Fetched:
        """Fetch what was found, or the one before it while that is in early access."""
        try:
            return self._download(resolved, client)
        except NotAuthorisedError as error:
            older = resolved.older
            if older is None or not (resolved.early or error.early_access):
                raise
            logger.info("Taking the version before it. %s", error)
        if entry is not None and _same(entry, older):
            return self._still(entry, older, client)
        return self._download(older, client)

    def _download(self, resolved: Resolved, client: Client) -> Fetched:
        """Fetch a file, and what its source keeps of it in another one."""
        config = self._config(resolved, client)
        if resolved.sha256 is not None:
            entry = self._entry(resolved, sha256=resolved.sha256)
            shared = self.store.share(self.source, entry, config)
            if shared is not None:
                return _fetched(self.store, shared, from_cache=True, warnings=resolved.warnings)
        part = self.store.part(self.source)
        return self._keep(part, self._weights(resolved, part, client), resolved, config)

    def _config(self, resolved: Resolved, client: Client) -> str | None:
        """Return the settings beside a file; None if it needs none, or has none.

        Who applies the file says what it lacks.
        """
        if resolved.config is None:
            return None
        try:
            api = Api(self.source.asked(), client, self.cancelled)
            return api.json(resolved.config, limit=MAX_CONFIG).text
        except NotFoundError:
            return None

    def _weights(self, resolved: Resolved, part: Part, client: Client) -> Arrived:
        # What is published of a tar's content is compared when it is unpacked.
        remote = replace(resolved, size=None, sha256=None) if resolved.tar else resolved
        arrived = Download(
            self.source.asked(),
            remote,
            part,
            client=client,
            room=self.store.make_room,
            progress=self.progress,
            cancelled=self.cancelled,
        ).run()
        return self._taken_out(part, arrived, resolved) if resolved.tar else arrived

    def _taken_out(self, part: Part, arrived: Arrived, resolved: Resolved) -> Arrived:
        """Leave of a tar the file in it."""
        label = self.source.shown()
        try:
            size, digest = unpack(part.path, label=label, max_bytes=self.settings.max_bytes)
            if resolved.sha256 not in (None, digest):
                raise BadFileError(
                    f"{label}: its SHA-256 is {digest} and the source says {resolved.sha256}. Try "
                    "again later, or ask its author."
                )
        except FetchError:
            part.remove()
            raise
        return replace(arrived, size=size, sha256=digest)

    def _unpack(self, source: DataURI) -> Fetched:
        """Write the bytes of a data: URI like bytes from anywhere else."""
        part, label = self.store.part(source), source.shown()
        part.remove()
        self.store.make_room(len(source.data))
        is_tar = source.data[_TAR_MARK] == b"ustar"
        sink = FileSink(part, label=label, tar=is_tar)
        try:
            sink.write(source.data)
            size, digest = sink.finish()
        except FetchError:
            sink.close()
            part.remove()
            raise
        part.forget_note()
        arrived, resolved = Arrived(part.path, size, digest, None), Resolved(url="", tar=is_tar)
        if is_tar:
            arrived = self._taken_out(part, arrived, resolved)
        return self._keep(part, arrived, resolved)

    def _keep(
        self, part: Part, arrived: Arrived, resolved: Resolved, config: str | None = None
    ) -> Fetched:
        """Check that it is a LoRA file at all, then give it its place."""
        try:
            head = header.read(arrived.path, name=self.source.shown())
        except BadFileError:
            part.remove()
            raise
        entry = self._entry(resolved, sha256=arrived.sha256)
        entry.size = arrived.size
        entry.revision = entry.revision or arrived.validator
        entry.trigger_words = entry.trigger_words or phrase_of(head)
        entry = self.store.add(self.source, arrived.path, entry, config)
        return _fetched(self.store, entry, from_cache=False, warnings=resolved.warnings)

    def _entry(self, resolved: Resolved, *, sha256: str) -> Entry:
        """What the index shall say, as far as the source tells."""
        later = self.settings.clock() + self.settings.recheck_after
        return Entry(
            source=self.source.shown(),
            file="",
            size=0,
            sha256=sha256,
            mtime_ns=0,
            url=bare_url(resolved.url),
            revision=resolved.revision and one_line(resolved.revision, MAX_STATE),
            name=one_line(resolved.name, MAX_NAME),
            trigger_words=trigger_words(resolved.trigger_words),
            check_after=later if self.source.moving else FOREVER,
        )


def _could_not_look(error: FetchError) -> str:
    warning = f"Could not look for a newer version, using the one from before. {error}"
    logger.warning("%s", warning)
    return warning


def _same(entry: Entry, resolved: Resolved) -> bool:
    """Whether a name still means the file we have, as far as the source lets us know."""
    if resolved.sha256 is not None:
        return resolved.sha256 == entry.sha256
    return resolved.revision is None or resolved.revision == entry.revision


def _local(source: LocalFile, store: Store) -> Fetched:
    path = store.local(source)
    head = header.read(path, name=source.name)
    return Fetched(
        path=path,
        source=source.shown(),
        sha256=store.local_hash(path),
        size=path.stat().st_size,
        name=path.name,
        trigger_words=tuple(phrase_of(head)),
        from_cache=True,
    )


def _fetched(store: Store, entry: Entry, *, from_cache: bool, warnings: tuple[str, ...]) -> Fetched:
    return Fetched(
        path=store.path(entry),
        source=entry.source,
        sha256=entry.sha256,
        size=entry.size,
        name=entry.name,
        trigger_words=tuple(entry.trigger_words),
        revision=entry.revision,
        from_cache=from_cache,
        warnings=tuple(one_line(warning, MAX_WARNING) for warning in warnings),
    )


def phrase_of(head: header.Header) -> list[str]:
    """The trigger words that the file itself names."""
    return trigger_words([head.metadata.get("modelspec.trigger_phrase", "")])


def _silent(done: int, total: int | None) -> None:
    """Nobody wants to know."""


def _never() -> bool:
    return False
