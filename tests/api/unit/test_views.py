"""What the clients see. Their own models are the reference, see `test_python1`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from flux_hotswap.hosted_api import views
from flux_hotswap.hosted_api.job import COG, Job, Status
from flux_hotswap.hosted_api.logs import seed_line, step_line

JOB = Job(
    id="j1", model="acme/flux", version="hidden", input={"prompt": "x"}, request={},
    created=0.0, deadline=1800.0,
)  # fmt: skip
URLS = {"get": "g", "cancel": "c", "web": "w", "stream": "s"}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (Status.QUEUED, "starting"),
        (Status.RUNNING, "processing"),
        (Status.SUCCEEDED, "succeeded"),
        (Status.FAILED, "failed"),
        (Status.CANCELED, "canceled"),
    ],
)
def test_five_words(status: Status, word: str) -> None:
    assert views.hosted(replace(JOB, status=status), [], URLS)["status"] == word


def test_a_job_that_waits() -> None:
    told = views.hosted(JOB, [], URLS)
    assert told["created_at"] == "1970-01-01T00:00:00.000000Z"
    assert (told["started_at"], told["completed_at"], told["output"]) == (None, None, None)
    assert (told["metrics"], told["logs"], told["error"]) == ({}, "", None)
    assert told["urls"] == URLS


def test_a_job_that_is_done() -> None:
    job = replace(JOB, status=Status.SUCCEEDED, started=1.0, completed=3.5)
    told = views.hosted(job, ["a", "b"], URLS)
    assert told["output"] == ["a", "b"]
    assert told["metrics"] == {"predict_time": 2.5, "total_time": 3.5}
    assert views.cog(replace(job, source=COG), ["a"]) == {
        "id": "j1", "status": "succeeded", "logs": "", "output": ["a"],
        "metrics": {"predict_time": 2.5},
    }  # fmt: skip


def test_a_canceled_one_that_never_ran() -> None:
    job = replace(JOB, status=Status.CANCELED, completed=3.0)
    assert views.hosted(job, [], URLS)["metrics"] == {"total_time": 3.0}


# What Python 1.0.7 and npm 1.4.0 look for: percent, bar, current/total.
PROGRESS = re.compile(r"^\s*(\d+)%\s*\|.+?\|\s*(\d+)\/(\d+)")


@pytest.mark.parametrize("step", range(29))
def test_lines_of_progress(step: int) -> None:
    found = PROGRESS.match(step_line(step, 28, step * 0.1))
    assert found is not None
    assert (int(found[2]), int(found[3])) == (step, 28)
    assert abs(int(found[1]) - step / 28 * 100) <= 0.5


def test_the_seed() -> None:
    assert seed_line(7) == "Using seed: 7\n"


def test_problems() -> None:
    fields = [("num_outputs", "give a whole number from 1 to 4")]
    assert views.problem(422, "T", "D", fields) == {
        "title": "T", "detail": "D", "status": 422,
        "invalid_fields": [
            {"type": "invalid", "field": "input.num_outputs", "description": fields[0][1]}
        ],
    }  # fmt: skip
    assert views.cog_problem("D", fields) == {
        "detail": [
            {"loc": ["body", "input", "num_outputs"], "msg": fields[0][1], "type": "value_error"}
        ]
    }
    assert views.cog_problem("D", [])["detail"][0]["msg"] == "D"
