"""What those who run the API are told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from flux_hotswap.hosted_api import app as put_together
from flux_hotswap.hosted_api.app import Where, build
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.service import Service


@pytest.mark.parametrize("broken", [False, True], ids=["as it should be", "a part has ended"])
def test_who_watches_hears_when_a_part_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Else nothing is drawn any more, and nobody starts the process anew."""

    async def ends(_: Service) -> None:
        await asyncio.sleep(0 if broken else 60)
        raise RuntimeError("of what cannot be foreseen")

    monkeypatch.setattr(put_together, "_sweeping", ends)

    async def whole() -> int:
        made = await build(Options(state=tmp_path), Where("http://127.0.0.1"), lambda: None)
        runner = web.AppRunner(made)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/livez"
        async with ClientSession() as session, session.get(url) as answer:
            status = answer.status
        await runner.cleanup()
        return status

    assert asyncio.run(whole()) == (503 if broken else 200)
