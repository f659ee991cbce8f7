"""The store: the first end of a job wins, and nothing is lost by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flux_hotswap.hosted_api.job import Job, Status, Waiting, new_id, prompt_id
from flux_hotswap.hosted_api.store import Store

EVERY = ("start", "output", "logs", "completed")
JOB = Job(
    id="j1",
    owner="me",
    model="acme/flux",
    version="hidden",
    input={"prompt": "x"},
    request={"prompt": "x", "seed": 7},
    created=100.0,
    deadline=1900.0,
    webhook="https://a.b/c",
    events=EVERY,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "jobs.sqlite")
    yield made
    made.close()


def add(store: Store, job_id: str = "j1", **changes: object) -> Job:
    job = replace(JOB, id=job_id, **changes)  # type: ignore[arg-type]
    store.add(job, digest="d")
    return job


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    assert store.get("j1") is None
    assert store.get(add(store).id) == JOB


def test_its_life(store: Store) -> None:
    add(store)
    leased = store.lease("j1", "w", 105.0)
    assert leased is not None
    assert (leased.status, leased.attempt, leased.worker, leased.started) == (
        Status.RUNNING, 1, "w", 105.0,
    )  # fmt: skip
    assert store.log("j1", 1, "a\n")
    ended = store.finish("j1", 1, Status.SUCCEEDED, 110.0, message="m1", files=("1-0.png",))
    assert ended is not None
    assert (ended.status, ended.completed, ended.files, ended.logs) == (
        Status.SUCCEEDED, 110.0, ("1-0.png",), "a\n",
    )  # fmt: skip


def test_a_job_is_leased_once(store: Store) -> None:
    add(store)
    assert store.lease("j1", "w", 1.0) is not None
    assert store.lease("j1", "v", 1.0) is None


def test_the_first_end_wins(store: Store) -> None:
    add(store)
    store.lease("j1", "w", 1.0)
    assert store.cancel("j1", 2.0, message="m1") is not None
    assert store.finish("j1", 1, Status.SUCCEEDED, 3.0, message="m2", files=("f",)) is None
    assert store.cancel("j1", 4.0, message="m3") is None
    job = store.get("j1")
    assert job is not None
    assert (job.status, job.files, job.completed) == (Status.CANCELED, (), 2.0)
    assert [message.id for message in store.messages(10.0)] == ["m1"]


def test_only_the_running_attempt_ends_a_job(store: Store) -> None:
    add(store)
    store.lease("j1", "w", 1.0)
    assert store.requeue("j1", 1, "lost\n")
    store.lease("j1", "v", 2.0)
    assert not store.log("j1", 1, "late")
    assert not store.requeue("j1", 1)
    assert store.finish("j1", 1, Status.FAILED, 3.0, message="m") is None
    assert store.finish("j1", 2, Status.SUCCEEDED, 3.0, message="m") is not None


def test_a_restart_takes_up_what_ran(tmp_path: Path) -> None:
    first = Store(tmp_path / "jobs.sqlite")
    for name in ("waits", "runs", "ended"):
        add(first, name)
    first.lease("runs", "w", 1.0)
    first.lease("ended", "w", 1.0)
    first.finish("ended", 1, Status.FAILED, 2.0, message="m")
    first.close()
    second = Store(tmp_path / "jobs.sqlite")
    assert [job.id for job in second.recover()] == ["runs"]
    assert [job.id for job in second.queued()] == ["waits", "runs"]
    second.close()


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """A process adds jobs and tells each when it is in; it is killed in the midst of that."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from flux_hotswap.hosted_api.store import Store\n"
        "from flux_hotswap.hosted_api.job import Job\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(100000):\n"
        "    known = dict(model='a/b', version='', input={}, request={}, created=n, deadline=1)\n"
        "    job = Job(id=f'j{n}', **known)\n"
        "    store.add(job, digest='')\n"
        "    print(f'j{n}', flush=True)\n"
    )
    path = tmp_path / "jobs.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(200)]
        os.kill(process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        told += process.stdout.read().split()[:-1]  # the last one may be cut
    store = Store(path)
    assert len(told) >= 200
    assert [job_id for job_id in told if store.get(job_id) is None] == []
    store.close()


def test_the_order_of_the_queue(store: Store) -> None:
    add(store, "second", created=2.0)
    add(store, "first", created=1.0)
    work = {"num_outputs": 4, "num_inference_steps": 10, "megapixels": "0.25", "lora": "a/b"}
    add(store, "third", created=3.0, urgency=5, request=work)
    assert [job.id for job in store.queued()] == ["first", "second", "third"]
    assert (store.count(Status.QUEUED), store.count(Status.RUNNING)) == (3, 0)
    assert store.queued()[2] == Waiting("third", ("dev", True, "a/b"), 3.0, "me", 5, 10.0)


@pytest.mark.parametrize(
    ("request_", "work"),
    [
        pytest.param({}, 28.0, id="as it is"),
        pytest.param({"num_inference_steps": 4, "num_outputs": 3}, 12.0, id="steps and pictures"),
        pytest.param({"megapixels": "0.25"}, 7.0, id="small"),
        pytest.param({"aspect_ratio": "custom", "width": 500, "height": 800}, 11.2, id="sides"),
        pytest.param({"width": 500, "height": 800}, 28.0, id="sides that do not count"),
        pytest.param({"image": "x", "prompt_strength": 0.5, "width": 500}, 14.0, id="an image"),
        pytest.param({"image": "x", "prompt_strength": 0.0}, 1.0, id="never nothing"),
    ],
)
def test_work(request_: dict[str, object], work: float) -> None:
    assert replace(JOB, request=request_).work == pytest.approx(work)


def test_pages(store: Store) -> None:
    for number in range(5):
        add(store, f"j{number}", created=float(number // 2))
    add(store, "other", owner="you")
    first = store.page("me", 2)
    rest = store.page("me", 9, before=(first[-1].created, first[-1].id))
    assert [job.id for job in first + rest] == ["j4", "j3", "j2", "j1", "j0"]
    assert [job.id for job in store.page("me", 9, after=1.0, until=1.5)] == ["j3", "j2"]


def test_repeated_calls(store: Store) -> None:
    store.add(JOB, digest="d1", key="mine")
    assert store.repeated("me", "d1", 99.0) == JOB
    assert store.repeated("me", "d1", 101.0) is None
    assert store.repeated("you", "d1", 0.0) is None
    assert store.keyed("me", "mine") == (JOB, "d1")
    assert store.keyed("you", "mine") is None


def test_deadlines(store: Store) -> None:
    add(store, "soon", deadline=5.0)
    add(store, "later", deadline=50.0)
    assert [job.id for job in store.late(10.0)] == ["soon"]


def test_what_is_forgotten(store: Store) -> None:
    add(store)
    store.lease("j1", "w", 1.0)
    store.finish("j1", 1, Status.SUCCEEDED, 10.0, message="m", files=("f",), text="log")
    assert store.forget(9.0) == []
    assert store.forget(11.0) == ["j1"]
    assert store.forget(11.0) == []
    job = store.get("j1")
    assert job is not None
    assert (job.removed, job.input, job.files, job.logs, job.webhook) == (True, {}, (), "", "")
    store.drop(11.0)
    assert store.get("j1") is None


def test_messages(store: Store) -> None:
    store.add(JOB, digest="", message="start")
    add(store, "quiet", events=("completed",))
    add(store, "silent", webhook="")
    assert [message.id for message in store.messages(100.0)] == ["start"]
    store.postpone("start", 150.0)
    assert store.messages(100.0) == []
    assert store.next_due() == 150.0
    (message,) = store.messages(150.0)
    assert (message.tries, message.job, message.event) == (1, "j1", "start")
    store.delivered("start")
    assert store.next_due() is None


def test_ids() -> None:
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 26 and each.isalnum() and each == each.lower() for each in made)
    assert prompt_id("j1", 1) == prompt_id("j1", 1) != prompt_id("j1", 2)
