"""Webhooks: what real receivers get, with the faults that they have."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api.hooks import ALL, SHORTER, Here, held, here, receiver, run

from flux_hotswap.hosted_api import post, store, webhooks
from flux_hotswap.hosted_api.job import Event
from flux_hotswap.hosted_api.webhooks import signature

pytestmark = pytest.mark.usefixtures("quick_hooks")


def test_the_pauses_grow_for_minutes() -> None:
    assert webhooks.THROTTLE * 4 == 0.5
    assert list(webhooks.PAUSES) == sorted(webhooks.PAUSES)
    assert 60 <= sum(webhooks.PAUSES) * SHORTER <= 300


# --- the signature ---


def test_a_signature_is_the_standards() -> None:
    """The example of the Standard Webhooks specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
    body = b'{"test": 2432232314}'
    told = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_and_whole(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            here.finish(here.job(f"{there.url}?key=x"))
            (seen,) = await there.got(1)
            await here.idle()
        assert seen.path == "/hook?key=x"
        assert seen.headers["content-type"] == "application/json"
        assert seen.status == "succeeded"
        sent = int(seen.headers["webhook-timestamp"])
        assert abs(sent - time.time()) < 5
        told = f"{seen.headers['webhook-id']}.{sent}.".encode() + seen.body
        digest = hmac.digest(bytes(range(24)), told, hashlib.sha256)
        assert seen.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        assert here.counted == [("completed", "delivered")]

    run(tmp_path, test)


# --- messages that must arrive ---


@pytest.mark.parametrize("fault", [500, 503, 404, 429, "gone"])
def test_the_end_is_told_until_it_is_taken(tmp_path: Path, fault: Any) -> None:
    async def test(here: Here) -> None:
        async with receiver(fault, fault, 200) as there:
            here.finish(here.job(there.url))
            seen = await there.got(3)
            await here.idle()
        assert len({one.headers["webhook-id"] for one in seen}) == 1
        assert len({one.body for one in seen}) == 1
        first, second = (b.at - a.at for a, b in itertools.pairwise(seen))
        assert first >= webhooks.PAUSES[0] * 0.9
        assert second >= webhooks.PAUSES[1] * 0.9
        assert here.counted == [("completed", "failed")] * 2 + [("completed", "delivered")]

    run(tmp_path, test)


@pytest.mark.parametrize("answer", [410, 302, 204])
def test_an_answer_that_is_final(tmp_path: Path, answer: int) -> None:
    async def test(here: Here) -> None:
        async with receiver(answer) as there:
            here.finish(here.job(there.url))
            await there.got(1)
            await here.idle()
            await asyncio.sleep(10 * webhooks.PAUSES[0])
            assert [one.path for one in there.seen] == ["/hook"], "no redirect was followed"
        outcome = "delivered" if answer == 204 else "refused"
        assert here.counted == [("completed", outcome)]

    run(tmp_path, test)


def test_a_receiver_that_hangs_holds_no_other(tmp_path: Path) -> None:
    """However many messages it is behind."""

    async def test(here: Here) -> None:
        async with receiver(20.0) as hangs, receiver() as there:
            for _ in range(2 * webhooks._READ):
                here.finish(here.job(hangs.url))
            here.finish(here.job(there.url))
            await there.got(1)
            assert len(hangs.seen) == webhooks._AT_ONE_PLACE

    run(tmp_path, test)


@pytest.mark.parametrize("answer", [200, 500])
def test_a_database_that_is_held_only_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    monkeypatch.setattr(store, "LOCKED", 0.01)
    monkeypatch.setattr(webhooks, "_AGAIN", 0.05)

    async def test(here: Here) -> None:
        tries = 1 if answer == 200 else 2
        async with receiver((0.1, answer), 200) as there:
            first, second = here.job(there.url), here.job(there.url)
            here.finish(first)
            await there.got(1)  # and before its answer comes
            with held(tmp_path / "jobs.sqlite"):
                await asyncio.sleep(0.5)
                assert len(there.seen) == 1, "what became of it could not be written"
            await there.got(tries)
            here.finish(second)
            await there.got(tries + 1)
            await here.idle()
        failed = [("completed", "failed")] * (tries - 1)
        assert here.counted == [*failed, *[("completed", "delivered")] * 2]

    run(tmp_path, test)


def test_nobody_is_told_for_ever(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500) as there:
            here.finish(here.job(there.url))
            await there.got(len(webhooks.PAUSES) + 1)
            await here.idle()
        assert here.counted[-1] == ("completed", "given_up")

    run(tmp_path, test)


def test_nobody_there(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            url = there.url
        here.finish(here.job(url))
        await here.idle()
        many = len(webhooks.PAUSES)
        assert here.counted == [("completed", "failed")] * many + [("completed", "given_up")]

    run(tmp_path, test)


def test_the_start_is_told_once_and_first(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500, 200) as there:
            here.finish(here.job(there.url, start=True))
            seen = await there.got(2)
            await here.idle()
        assert [one.status for one in seen] == ["queued", "succeeded"]
        assert here.counted == [("start", "failed"), ("completed", "delivered")]

    run(tmp_path, test)


def test_only_what_was_asked_for_is_told(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url, ("start",), start=True)
            await here.webhooks.tell(job, Event.LOGS)
            here.finish(job)
            await there.got(1)
            await here.idle()
            silent = here.job("", ALL, start=True)
            await here.webhooks.tell(silent, Event.LOGS)
            here.finish(silent)
            await asyncio.sleep(0.05)
        assert here.counted == [("start", "delivered")]

    run(tmp_path, test)


def test_a_restart_tells_again_with_the_same_id(tmp_path: Path) -> None:
    async def whole() -> None:
        async with receiver(30.0, 200) as there:
            async with here(tmp_path) as first:
                first.finish(first.job(there.url))
                await there.got(1)
            async with here(tmp_path) as second:
                await there.got(2)
                await second.idle()
            one, two = there.seen
            assert one.headers["webhook-id"] == two.headers["webhook-id"]

    asyncio.run(whole())


def test_slow_ones_do_not_hold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(here: Here) -> None:
        async with receiver(30.0) as slow, receiver() as there:
            for _ in range(30):
                here.finish(here.job(slow.url))
            here.finish(here.job(there.url))
            began = time.monotonic()
            await there.got(1)
            assert time.monotonic() - began < 1
            assert len(slow.seen) <= 2

    run(tmp_path, test)


def test_a_receiver_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "post", _within(0.2))

    async def test(here: Here) -> None:
        async with receiver(30.0, 200) as there:
            here.finish(here.job(there.url))
            await there.got(2)
            await here.idle()
        assert here.counted == [("completed", "failed"), ("completed", "delivered")]

    run(tmp_path, test)


def _within(seconds: float) -> Callable[..., Coroutine[Any, Any, int]]:
    def posted(*given: Any) -> Coroutine[Any, Any, int]:
        return post.post(*given, seconds=seconds)

    return posted


def test_a_view_that_fails_ends_too(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.webhooks._view = lambda job: {"odd": job}  # no JSON
        async with receiver() as there:
            here.finish(here.job(there.url))
            await here.idle()
            assert there.seen == []
        assert here.counted[-1] == ("completed", "given_up")

    run(tmp_path, test)


# --- what happens in between ---


def test_in_between_at_most_twice_a_second(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url)
            for number in range(30):
                await here.webhooks.tell(replace(job, logs=str(number)), Event.LOGS)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            pauses = [b.at - a.at for a, b in itertools.pairwise(there.seen)]
            assert 3 <= len(there.seen) <= 5
            assert min(pauses) >= 0.9 * webhooks.THROTTLE
            assert len({one.headers["webhook-id"] for one in there.seen}) == len(there.seen)

    run(tmp_path, test)


def test_the_output_comes_before_the_end(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(0.1) as there:
            job = here.job(there.url)
            await here.webhooks.tell(job, Event.LOGS)
            await asyncio.sleep(0.05)
            await here.webhooks.tell(job, Event.LOGS)
            ended = here.finish(job)
            await here.webhooks.tell(ended, Event.OUTPUT)
            seen = await there.got(3)
            await here.idle()
        assert [one.status for one in seen] == ["running", "succeeded", "succeeded"]
        assert [event for event, _ in here.counted] == ["logs", "output", "completed"]

    run(tmp_path, test)


def test_logs_do_not_come_after_the_end(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver() as there:
            job = here.job(there.url)
            here.finish(job)
            await here.webhooks.tell(job, Event.LOGS)
            await here.idle()
            await asyncio.sleep(0.05)
            assert [one.status for one in there.seen] == ["succeeded"]

    run(tmp_path, test)


def test_in_between_is_never_told_again(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        async with receiver(500) as there:
            await here.webhooks.tell(here.job(there.url), Event.LOGS)
            await there.got(1)
            await asyncio.sleep(2 * webhooks.THROTTLE)
            assert len(there.seen) == 1
        assert here.counted == [("logs", "failed")]

    run(tmp_path, test)
