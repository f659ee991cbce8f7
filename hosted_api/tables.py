"""The tables of the API's database, and what each question to them looks up."""

from __future__ import annotations

from typing import Final

TABLES: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, source TEXT NOT NULL, model TEXT NOT NULL,
    version TEXT NOT NULL, input TEXT NOT NULL, request TEXT NOT NULL, status TEXT NOT NULL,
    attempt INTEGER NOT NULL, worker TEXT NOT NULL, created REAL NOT NULL, started REAL,
    completed REAL, deadline REAL NOT NULL, files TEXT NOT NULL, error TEXT NOT NULL,
    logs TEXT NOT NULL, webhook TEXT NOT NULL, events TEXT NOT NULL, removed INTEGER NOT NULL,
    urgency INTEGER NOT NULL, kind TEXT NOT NULL, work REAL NOT NULL, digest TEXT NOT NULL, key TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_key ON jobs (owner, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (status, created);
CREATE INDEX IF NOT EXISTS jobs_listed ON jobs (owner, created DESC);
CREATE INDEX IF NOT EXISTS jobs_ended ON jobs (completed) WHERE completed IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_kept ON jobs (completed) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS jobs_model ON jobs (model);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, event TEXT NOT NULL, tries INTEGER NOT NULL,
    due REAL NOT NULL, origin TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_due ON outbox (due);
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, content_type TEXT NOT NULL,
    size INTEGER NOT NULL, md5 TEXT NOT NULL, sha256 TEXT NOT NULL, metadata TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS issued (version TEXT PRIMARY KEY, model TEXT NOT NULL);
"""
