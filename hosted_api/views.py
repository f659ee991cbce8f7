"""What a job looks like to the clients: the hosted model's object, and Cog's. Pure.

The clients' own models refuse what is missing or of another type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from .job import Job, Status

STATUS: Final = {
    Status.QUEUED: "starting",
    Status.RUNNING: "processing",
    Status.SUCCEEDED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELED: "canceled",
}
"""The five words that the clients know."""

MAKER: Final = "flux-hotswap"
COG_VERSION: Final = "0.13.6"
"""Of the hosted model; from 0.3.9 on an array is a list, and not an iterator."""

Json = dict[str, Any]


def stamp(seconds: float | None) -> str | None:
    """Return a moment as ISO 8601 with Z."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def hosted(job: Job, addresses: Sequence[str], urls: Mapping[str, str]) -> Json:
    """Return a job as the hosted model's API shows it.

    Args:
        job: the job.
        addresses: of its pictures.
        urls: get, cancel, web and stream.
    """
    return {
        "id": job.id,
        "model": job.model,
        "version": job.version,
        "status": STATUS[job.status],
        "input": job.input,
        "output": list(addresses) if addresses else None,
        "error": job.error or None,
        "logs": job.logs,
        "metrics": metrics(job),
        "created_at": stamp(job.created),
        "started_at": stamp(job.started),
        "completed_at": stamp(job.completed),
        "data_removed": job.removed,
        "source": "api",
        "deadline": stamp(job.deadline),
        "urls": dict(urls),
    }


def cog(job: Job, addresses: Sequence[str]) -> Json:
    """Return a job as a Cog container shows it."""
    told: Json = {
        "id": job.id,
        "status": STATUS[job.status],
        "logs": job.logs,
        "output": list(addresses) if addresses else None,
        "metrics": {name: value for name, value in metrics(job).items() if name == "predict_time"},
    }
    return told | ({"error": job.error} if job.error else {})


def metrics(job: Job) -> Json:
    """Return how long a job took, in seconds; empty before its end."""
    if job.completed is None:
        return {}
    total = {"total_time": round(job.completed - job.created, 6)}
    if job.started is None:
        return total
    return {"predict_time": round(job.completed - job.started, 6), **total}


def problem(status: int, title: str, detail: str, fields: Sequence[tuple[str, str]]) -> Json:
    """Return an error as the hosted model's API answers it."""
    told: Json = {"title": title or "Error", "detail": detail, "status": status}
    if fields:
        told["invalid_fields"] = [
            {"type": "invalid", "field": f"input.{name}", "description": why}
            for name, why in fields
        ]
    return told


def cog_problem(detail: str, fields: Sequence[tuple[str, str]]) -> Json:
    """Return bad input as a Cog container answers it: always a list."""
    if not fields:
        return {"detail": [{"loc": ["body"], "msg": detail, "type": "value_error"}]}
    return {
        "detail": [
            {"loc": ["body", "input", name], "msg": why, "type": "value_error"}
            for name, why in fields
        ]
    }


# --- models ---


def version(version_id: str, created: float, schema: Json) -> Json:
    """Return a version of a model; 1.0.7 wants all four keys."""
    return {
        "id": version_id,
        "created_at": stamp(created),
        "cog_version": COG_VERSION,
        "openapi_schema": schema,
    }


def model(name: str, latest: Json, runs: int, url: str) -> Json:
    """Return a model."""
    owner, _, short = name.partition("/")
    return {
        "url": url,
        "owner": owner,
        "name": short,
        "description": "Drawn here by flux-hotswap.",
        "visibility": "private",
        "is_official": False,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": runs,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": latest,
    }


def deployment(name: str, version_id: str, created: float, workers: int) -> Json:
    """Return a deployment: a mapped name, run by the workers that there are."""
    owner, _, short = name.partition("/")
    return {
        "owner": owner,
        "name": short,
        "current_release": {
            "number": 1,
            "model": name,
            "version": version_id,
            "created_at": stamp(created),
            "created_by": account(),
            "configuration": {
                "hardware": "local",
                "min_instances": workers,
                "max_instances": workers,
            },
        },
    }


def account() -> Json:
    """Return whose account it is: there is one."""
    return {"type": "user", "username": "local", "name": MAKER, "github_url": None}


def page(results: Sequence[Json], next_url: str | None) -> Json:
    """Return one page of a list; `next_url` is absolute, since one client resolves it wrongly."""
    return {"previous": None, "next": next_url, "results": list(results)}
