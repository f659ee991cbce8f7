"""Jobs, webhooks' messages and uploads in SQLite, so that a process may be killed at any moment.

Every method is one transaction and takes a fraction of a millisecond; the event loop calls them
directly. The first end of a job wins: `finish` and `cancel` change only what has not ended, and
`finish` only the attempt that is running.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..files.addresses import origin
from .job import Event, Job, Kind, Status, Waiting
from .tables import TABLES

Row: TypeAlias = "dict[str, Any]"

LOCKED: Final = 1.0
"""Seconds that a call waits, and everybody with it, while another process holds the file."""

_AS_JSON: Final = ("input", "request", "files", "events")
_OPEN: Final = (Status.QUEUED.value, Status.RUNNING.value)


@dataclass(frozen=True)
class Message:
    """A webhook's message that is still to be delivered.

    Attributes:
        id: the same at every try.
        job: whose.
        event: which.
        tries: how often it was tried.
    """

    id: str
    job: str
    event: str
    tries: int


@dataclass(frozen=True)
class Upload:
    """A file that a client sent; its bytes lie in a folder beside, under its id."""

    id: str
    owner: str
    name: str
    content_type: str
    size: int
    md5: str
    sha256: str
    metadata: dict[str, Any]
    created: float
    expires: float


class Store:
    """The database of one API process.

    Args:
        path: the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # it may be from elsewhere; the files beside it get what it has
        self._db = sqlite3.connect(
            path, timeout=LOCKED, isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- jobs ---

    def add(self, job: Job, *, digest: str, key: str | None = None, message: str = "") -> None:
        """Keep a new job.

        Args:
            job: the job.
            digest: of the body that asked for it, to know a repeated call.
            key: the client's own name for the call.
            message: id of the message that tells its webhook of the start; empty for none.
        """
        row = {**vars(job), "digest": digest, "key": key, "status": job.status.value}
        row |= {name: json.dumps(row[name]) for name in _AS_JSON}
        row |= {"kind": json.dumps(job.kind), "work": job.work}
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        with self._transaction():
            self._db.execute(f"INSERT INTO jobs ({names}) VALUES ({values})", row)  # noqa: S608
            self._tell(job, Event.START, message, job.created)

    def get(self, job_id: str) -> Job | None:
        """Return a job."""
        return self._one("SELECT * FROM jobs WHERE id = ?", job_id)

    def repeated(self, owner: str, digest: str, since: float) -> Job | None:
        """Return the newest job that the same body asked for since a moment."""
        return self._one(
            "SELECT * FROM jobs WHERE owner = ? AND digest = ? AND created >= ? AND removed = 0 "
            "ORDER BY created DESC LIMIT 1",
            *(owner, digest, since),
        )

    def keyed(self, owner: str, key: str) -> tuple[Job, str] | None:
        """Return the job of a client's own key, and the digest of the body that asked for it."""
        row = self._row("SELECT * FROM jobs WHERE owner = ? AND key = ?", owner, key)
        return (_job(row), str(row["digest"])) if row is not None else None

    def page(
        self, owner: str, limit: int, *, before: tuple[float, str] | None = None,
        after: float = 0.0, until: float = 1e12,
    ) -> list[Job]:  # fmt: skip
        """Return an owner's jobs, the newest first.

        Args:
            owner: whose.
            limit: so many at most.
            before: time and id of the job that the page follows.
            after: none that was made before this moment.
            until: none that was made after this one.
        """
        created, job_id = before or (1e12, "")
        return self._jobs(
            "SELECT * FROM jobs WHERE owner = ? AND (created, id) < (?, ?) AND created >= ? "
            "AND created <= ? ORDER BY created DESC, id DESC LIMIT ?",
            *(owner, created, job_id, after, until, limit),
        )

    def queued(self) -> list[Waiting]:
        """Return what waits, the oldest first."""
        cursor = self._db.cursor()
        cursor.row_factory = None  # plain rows: this is asked for before each start
        rows = cursor.execute(
            "SELECT id, kind, created, owner, urgency, work FROM jobs WHERE status = 'queued' "
            "ORDER BY created, rowid"
        )
        return [Waiting(each[0], _kind(each[1]), *each[2:]) for each in rows]

    def count(self, status: Status) -> int:
        """Return how many jobs are in a state."""
        query = "SELECT count(*) FROM jobs WHERE status = ?"
        (many,) = self._db.execute(query, (status.value,)).fetchone()
        return int(many)

    def usual_seconds(self) -> float:
        """Return how long the last jobs took to draw, on average; 0 before the first."""
        (mean,) = self._db.execute(
            "SELECT avg(seconds) FROM (SELECT completed - started AS seconds FROM jobs "
            "WHERE status = 'succeeded' ORDER BY created DESC LIMIT 20)"
        ).fetchone()
        return float(mean or 0.0)

    def runs(self, model: str) -> int:
        """Return how often a model was called."""
        (many,) = self._db.execute("SELECT count(*) FROM jobs WHERE model = ?", (model,)).fetchone()
        return int(many)

    def late(self, now: float) -> list[Job]:
        """Return what has passed its deadline without an end."""
        return self._jobs(
            "SELECT * FROM jobs WHERE status IN (?, ?) AND deadline <= ?", *_OPEN, now
        )

    def lease(self, job_id: str, worker: str, now: float) -> Job | None:
        """Begin an attempt; None where the job does not wait any more."""
        return self._one(
            "UPDATE jobs SET status = 'running', attempt = attempt + 1, worker = ?, "
            "started = coalesce(started, ?) WHERE id = ? AND status = 'queued' RETURNING *",
            *(worker, now, job_id),
        )

    def log(self, job_id: str, attempt: int, text: str) -> bool:
        """Add to the log of a running attempt; whether it still runs."""
        cursor = self._db.execute(
            "UPDATE jobs SET logs = logs || ? WHERE id = ? AND status = 'running' AND attempt = ?",
            (text, job_id, attempt),
        )
        return cursor.rowcount == 1

    def recover(self) -> list[Job]:
        """Let everything wait again that ran when the process ended; what that was."""
        return self._jobs(
            "UPDATE jobs SET status = 'queued', worker = '', "
            "logs = logs || 'The API was started anew. It is drawn again.\n' "
            "WHERE status = 'running' RETURNING *"
        )

    def requeue(self, job_id: str, attempt: int, text: str = "") -> bool:
        """Let a job wait again whose attempt was lost; whether it was that attempt's."""
        cursor = self._db.execute(
            "UPDATE jobs SET status = 'queued', worker = '', logs = logs || ? "
            "WHERE id = ? AND status = 'running' AND attempt = ?",
            (text, job_id, attempt),
        )
        return cursor.rowcount == 1

    def finish(
        self, job_id: str, attempt: int, status: Status, now: float, *, message: str,
        files: tuple[str, ...] = (), error: str = "", text: str = "",
    ) -> Job | None:  # fmt: skip
        """End a running attempt; None where another end came first.

        Args:
            job_id: which job.
            attempt: the one that ends.
            status: how.
            now: when.
            message: id of the message that tells its webhook.
            files: its pictures.
            error: why it failed.
            text: the last of its log.
        """
        with self._transaction():
            job = self._one(
                "UPDATE jobs SET status = ?, completed = ?, files = ?, error = ?, worker = '', "
                "logs = logs || ? WHERE id = ? AND status = 'running' AND attempt = ? RETURNING *",
                *(status.value, now, json.dumps(files), error, text, job_id, attempt),
            )
            if job is not None:
                self._tell(job, Event.COMPLETED, message, now)
        return job

    def cancel(self, job_id: str, now: float, *, message: str, text: str = "") -> Job | None:
        """Cancel what has not ended; None where it has."""
        with self._transaction():
            job = self._one(
                "UPDATE jobs SET status = 'canceled', completed = ?, logs = logs || ? "
                "WHERE id = ? AND status IN (?, ?) RETURNING *",
                *(now, text, job_id, *_OPEN),
            )
            if job is not None:
                self._tell(job, Event.COMPLETED, message, now)
        return job

    def forget(self, before: float) -> list[str]:
        """Remove the data of jobs that ended before a moment, and return their ids."""
        rows = self._db.execute(
            "UPDATE jobs SET removed = 1, input = '{}', request = '{}', files = '[]', logs = '', "
            "error = '', webhook = '', digest = '' "
            "WHERE completed < ? AND removed = 0 RETURNING id",
            (before,),
        ).fetchall()
        return [str(row["id"]) for row in rows]

    def drop(self, before: float) -> None:
        """Drop jobs whole that ended before a moment."""
        self._db.execute("DELETE FROM jobs WHERE completed < ?", (before,))

    # --- versions ---

    def issue(self, version: str, model: str) -> None:
        """Keep which model was told this version of its own."""
        self._db.execute("INSERT OR IGNORE INTO issued VALUES (?, ?)", (version, model))

    def issued(self, version: str) -> str:
        """Return the model that was told a version of its own; empty where none was."""
        row = self._row("SELECT model FROM issued WHERE version = ?", version)
        return "" if row is None else str(row["model"])

    # --- messages ---

    def messages(
        self, now: float, limit: int = 100, without: Collection[str] = ()
    ) -> list[Message]:
        """Return the messages that are to be delivered now, but none to some origins."""
        marks = ", ".join("?" * len(without))
        rows = self._db.execute(
            "SELECT id, job, event, tries FROM outbox "  # noqa: S608 - marks alone
            f"WHERE due <= ? AND origin NOT IN ({marks}) ORDER BY due LIMIT ?",
            (now, *without, limit),
        )
        return [Message(**dict(row)) for row in rows]

    def next_due(self) -> float | None:
        """Return when the next message is to be delivered; None where there is none."""
        (due,) = self._db.execute("SELECT min(due) FROM outbox").fetchone()
        return None if due is None else float(due)

    def delivered(self, message: str) -> None:
        """Drop a message that has arrived, or is given up."""
        self._db.execute("DELETE FROM outbox WHERE id = ?", (message,))

    def postpone(self, message: str, due: float) -> None:
        """Count a try that failed, and say when the next one is."""
        self._db.execute(
            "UPDATE outbox SET tries = tries + 1, due = ? WHERE id = ?", (due, message)
        )

    def _tell(self, job: Job, event: Event, message: str, now: float) -> None:
        if message and job.webhook and event.value in job.events:
            self._db.execute(
                "INSERT INTO outbox VALUES (?, ?, ?, 0, ?, ?)",
                (message, job.id, event.value, now, origin(job.webhook)),
            )

    # --- uploads ---

    def add_upload(self, upload: Upload) -> None:
        """Keep what is known of a file."""
        row = {**vars(upload), "metadata": json.dumps(upload.metadata)}
        names = ", ".join(f":{name}" for name in row)
        self._db.execute(f"INSERT INTO uploads VALUES ({names})", row)  # noqa: S608

    def upload(self, upload_id: str) -> Upload | None:
        """Return what is known of a file."""
        return self._upload("SELECT * FROM uploads WHERE id = ?", upload_id)

    def uploads(self, owner: str) -> list[Upload]:
        """Return an owner's files, the newest first."""
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE owner = ? ORDER BY created DESC, rowid DESC", (owner,)
        )
        return [_upload(dict(row)) for row in rows]

    def uploaded_bytes(self) -> int:
        """Return how many bytes all files have."""
        (size,) = self._db.execute("SELECT coalesce(sum(size), 0) FROM uploads").fetchone()
        return int(size)

    def delete_upload(self, upload_id: str) -> None:
        """Forget a file."""
        self._db.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))

    def expired_uploads(self, now: float) -> list[str]:
        """Forget the files whose time is over, and return their ids."""
        rows = self._db.execute("DELETE FROM uploads WHERE expires <= ? RETURNING id", (now,))
        return [str(row["id"]) for row in rows.fetchall()]

    # --- parts ---

    @contextmanager
    def _transaction(self) -> Generator[None, None, None]:
        with self._db:  # it commits, or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def _row(self, query: str, *values: object) -> Row | None:
        found = self._db.execute(query, values).fetchall()
        return dict(found[0]) if found else None

    def _one(self, query: str, *values: object) -> Job | None:
        row = self._row(query, *values)
        return _job(row) if row is not None else None

    def _jobs(self, query: str, *values: object) -> list[Job]:
        return [_job(dict(row)) for row in self._db.execute(query, values)]

    def _upload(self, query: str, *values: object) -> Upload | None:
        row = self._row(query, *values)
        return _upload(row) if row is not None else None


@lru_cache(maxsize=4096)
def _kind(text: str) -> Kind:
    model, fast, lora = json.loads(text)
    return model, fast, lora


def _job(row: Row) -> Job:
    known = {name: row[name] for name in Job.__dataclass_fields__}
    known |= {name: json.loads(row[name]) for name in _AS_JSON}
    known["status"] = Status(row["status"])
    known["files"], known["events"] = tuple(known["files"]), tuple(known["events"])
    known["removed"] = bool(row["removed"])
    return Job(**known)


def _upload(row: Row) -> Upload:
    known: Row = {**row, "metadata": json.loads(row["metadata"])}
    return Upload(**known)
