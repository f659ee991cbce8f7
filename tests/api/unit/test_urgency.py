"""How urgent a call is, and what of that each API and each token brings about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from flux_hotswap.hosted_api.app import Where, build
from flux_hotswap.hosted_api.job import Job
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.urgency import granted, read_priority

PLAIN, URGENT = "r8_a_token_of_no_rank", "r8_a_token_of_some_rank"
MODEL = "/v1/models/black-forest-labs/flux-dev"


@pytest.mark.parametrize(
    ("header", "level"),
    [
        ("", None),
        ("u=0", 0),
        ("u=7", 7),
        ("  u=5  ", 5),
        ("u=5, i", 5),
        ("i=?0 ,\tu=1", 1),
        ("u=1, u=6", 6),
        ("u=2;why=now;x", 2),
        ('a="u=1, \\"", b=(1 "x";y tok/en), c=:YQ==:, d=1.5;e, f=@17, u=4', 4),
        ("x=3", None),
        pytest.param("u=8", None, id="out of range"),
        pytest.param("u=-1", None, id="below the range"),
        pytest.param("u=1.0", None, id="no integer"),
        pytest.param('u="1"', None, id="a text"),
        pytest.param("u", None, id="a boolean"),
        pytest.param("u=(1)", None, id="a list"),
        pytest.param("u=3, u", None, id="the last one is of another type"),
        pytest.param("u=2,", None, id="a comma at the end"),
        pytest.param("u=2 i", None, id="no comma"),
        pytest.param("u =2", None, id="a space before the value"),
        pytest.param("u= 2", None, id="a space in the value"),
        pytest.param("U=2", None, id="no key"),
        pytest.param("u=2, x=", None, id="another member is broken"),
        pytest.param("u=2, x=1234567890123456", None, id="another's number is too long"),
        pytest.param("u=\u0662", None, id="no digit of ASCII"),
        pytest.param("u=2, " + "a, " * 1000 + "b", None, id="endless"),
        pytest.param("u=2, a=" + "(" * 900, None, id="lists in lists"),
    ],
)
def test_the_header(header: str, level: int | None) -> None:
    assert read_priority(header) == level


@pytest.mark.parametrize(
    ("asked", "owner", "level", "noted"),
    [
        (None, "plain", 3, False),
        (None, "urgent", 1, False),
        (5, "plain", 5, False),
        (5, "urgent", 5, False),
        (1, "urgent", 1, False),
        (0, "urgent", 1, True),
        (2, "plain", 3, True),
    ],
)
def test_what_a_token_may(asked: int | None, owner: str, level: int, noted: bool) -> None:
    found, note = granted(asked, owner, {"urgent": 1, "plain": 3})
    assert (found, bool(note)) == (level, noted)


@pytest.mark.parametrize(("asked", "level"), [(None, 3), (0, 0), (7, 7)])
def test_without_tokens_everybody_may_ask_for_any(asked: int | None, level: int) -> None:
    assert granted(asked, "", None) == (level, "")


CALLS = [
    pytest.param("POST", "/v1/predictions", "version", id="version"),
    pytest.param("POST", f"{MODEL}/predictions", "", id="model"),
    pytest.param("POST", f"{MODEL}/versions/hidden/predictions", "", id="model's version"),
    pytest.param("POST", "/v1/deployments/acme/flux/predictions", "", id="deployment"),
    pytest.param("POST", "/predictions", "", id="cog"),
    pytest.param("POST", "/predictions", "version", id="cog's address, version"),
    pytest.param("PUT", "/predictions/mine", "", id="cog's put"),
]


def made(state: Path, method: str, path: str, version: str, options: Options, token: str) -> Job:
    """The job that a call with the header makes; nobody is there who would draw it."""

    async def whole() -> None:
        where = Where()
        runner = web.AppRunner(await build(options, where, lambda: None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        where.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        body = {"input": {"prompt": "x"}}
        if version:
            body[version] = "black-forest-labs/flux-dev"  # type: ignore[assignment]
        headers = [("Priority", "i"), ("Priority", "u=1"), ("Authorization", f"Bearer {token}")]
        headers += [("Prefer", "respond-async")]
        try:
            async with (
                ClientSession(where.url) as session,
                session.request(method, path, json=body, headers=headers) as answer,
            ):
                assert answer.status in (201, 202), await answer.text()
        finally:
            await runner.cleanup()

    asyncio.run(whole())
    store = Store(state / "jobs.sqlite")
    (waiting,) = store.queued()
    job = store.get(waiting.id)
    store.close()
    assert job is not None
    assert job.urgency == waiting.urgency
    return job


@pytest.mark.parametrize(("method", "path", "version"), CALLS)
def test_each_way_to_call(tmp_path: Path, method: str, path: str, version: str) -> None:
    options = Options(state=tmp_path, allow=("*",), names={"acme/flux": {}})
    assert made(tmp_path, method, path, version, options, "any").urgency == 1


@pytest.mark.parametrize(
    ("token", "level", "log"), [(PLAIN, 3, "u=3 is used.\n"), (URGENT, 1, "")], ids=["plain", "u=1"]
)
@pytest.mark.parametrize("path", [f"{MODEL}/predictions", "/predictions"])
def test_each_token(tmp_path: Path, token: str, level: int, log: str, path: str) -> None:
    """A call gets what its token may have; its log says so, and says no token."""
    options = Options(state=tmp_path, allow=("*",), tokens={PLAIN: 3, URGENT: 1})
    job = made(tmp_path, "POST", path, "", options, token)
    assert job.urgency == level
    assert job.logs.endswith(log) if log else job.logs == ""
    assert token not in job.logs
