"""How the page goes out: at the root of a server, and below another one's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from flux_hotswap.hosted_api.app import Where, build
from flux_hotswap.hosted_api.inside import PATH, lead_to_page
from flux_hotswap.hosted_api.operate import PAGE
from flux_hotswap.hosted_api.options import Options

HTML = {"Accept": "text/html"}
Test = Callable[[ClientSession], Awaitable[None]]


def run(state: Path, prefix: str, test: Test) -> None:
    async def whole() -> None:
        where = Where()
        app = await build(Options(state=state, comfyui=("http://127.0.0.1:9",)), where)
        if prefix:
            inside, app = app, web.Application()
            app.router.add_get(prefix, lead_to_page)
            app.add_subapp(prefix, inside)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        where.url = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
        try:
            async with ClientSession(where.url.removesuffix(prefix)) as session:
                await test(session)
        finally:
            await runner.cleanup()

    asyncio.run(whole())


@pytest.mark.parametrize("prefix", ["", PATH])
def test_the_page_and_its_files(tmp_path: Path, prefix: str) -> None:
    async def test(session: ClientSession) -> None:
        async with session.get(prefix or "/", headers=HTML) as answer:
            assert (answer.status, answer.url.path) == (200, f"{prefix}/")
            text = await answer.text()
        assert text == (PAGE / "index.html").read_text(encoding="utf-8")
        kinds = {"index.html": "html", "page.css": "css", "page.mjs": "javascript"}
        kinds["read.mjs"] = "javascript"
        assert {path.name for path in PAGE.iterdir()} == kinds.keys()
        for name, kind in kinds.items():
            async with session.get(f"{prefix}/page/{name}") as answer:
                assert await answer.read() == (PAGE / name).read_bytes()
                assert answer.content_type == f"text/{kind}"
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'")
                assert "unsafe" not in policy
        for name in ("..%2foperate.py", "nothing.mjs", "..%2f..%2ferrors.py"):
            async with session.get(f"{prefix}/page/{name}") as answer:
                assert answer.status == 404

    run(tmp_path, prefix, test)


def test_nothing_runs_from_the_page_itself() -> None:
    """Its policy would not let it; so that nobody tries."""
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    assert "style=" not in text
    assert not re.search(r"\son\w+\s*=", text)
    assert text.count("<script") == 1
    for script in PAGE.glob("*.mjs"):
        said = script.read_text(encoding="utf-8")
        assert not any(
            word in said for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(")
        )
