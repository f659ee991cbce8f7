"""ComfyUIs that fail: which of it is the prediction's fault, and which the worker's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from flux_hotswap.errors import DrawError, SettingsError, WorkerLostError
from flux_hotswap.hosted_api import local
from flux_hotswap.hosted_api.comfy_client import ComfyClient, is_sick
from flux_hotswap.hosted_api.comfy_process import ComfyProcess
from flux_hotswap.hosted_api.options import Options


@pytest.mark.parametrize(
    ("why", "sick"),
    [
        ("CUDA error: an illegal memory access was encountered\nCompile with ...", True),
        ("CUDA error: device-side assert triggered", True),
        ("HIP error: unspecified launch failure", True),
        ("CUDA error: out of memory", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("lora: missing.safetensors is not in the loras folders; put it there", False),
        ("", False),
    ],
)
def test_a_gpu_that_its_process_cannot_use_any_more(why: str, sick: bool) -> None:
    assert is_sick(why) is sick


@asynccontextmanager
async def client(
    answer: Callable[[web.Request], Awaitable[web.Response]],
) -> AsyncIterator[ComfyClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield ComfyClient(f"http://127.0.0.1:{runner.addresses[0][1]}", session, "mark-")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, DrawError), (500, DrawError), (413, DrawError)]
    + [(status, WorkerLostError) for status in (502, 503, 504)],
)
def test_a_proxy_before_comfyui_refuses_no_prediction(status: int, error: type[Exception]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>Bad Gateway</html>")

    async def test() -> None:
        async with client(answer) as comfy:
            with pytest.raises(error):
                await comfy.submit({}, "id", "client")

    asyncio.run(test())


def test_what_runs_and_what_waits_in_comfyui() -> None:
    async def answer(_: web.Request) -> web.Response:
        parts = {"queue_running": [[0, "a", {"1": {}}, {}, []]], "queue_pending": [[1, "b", {}]]}
        return web.json_response(parts)

    async def test() -> None:
        async with client(answer) as comfy:
            assert await comfy.queue() == ({"a": {"1": {}}}, {"b": {}})

    asyncio.run(test())


async def nobody() -> None:
    raise WorkerLostError("does not answer")


@pytest.mark.parametrize("trouble", ["no python", "a folder that cannot be", "ends at once"])
def test_a_comfyui_that_cannot_be_started_is_a_lost_worker(tmp_path: Path, trouble: str) -> None:
    """It is tried again later; any other error would end that for good."""
    folder = tmp_path / "comfyui-0"
    python = tmp_path / "none" if trouble == "no python" else Path(sys.executable)
    if trouble == "a folder that cannot be":
        folder.touch()
    process = ComfyProcess(tmp_path / "none.py", python, 1, folder)
    with pytest.raises(WorkerLostError):
        asyncio.run(process.start(nobody))


def test_what_cannot_be_cleared_away_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody has open on Windows; a volume that is mounted there."""
    (tmp_path / "output").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    process = ComfyProcess(tmp_path / "none.py", None, 1, tmp_path)
    with pytest.raises(WorkerLostError, match="has ended"):
        asyncio.run(process.start(nobody))


@pytest.mark.parametrize(
    ("allowed", "given"),
    [
        pytest.param(None, ["0", "1"], id="all"),
        pytest.param("2, 3,5", ["2", "3"], id="the administrator's"),
        pytest.param("GPU-8a2f,MIG-1/2", ["GPU-8a2f", "MIG-1/2"], id="by their names"),
    ],
)
def test_each_comfyui_gets_a_card_of_its_own(
    allowed: str | None, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(local.CARDS, raising=False)
    if allowed is not None:
        monkeypatch.setenv(local.CARDS, allowed)
    assert [local.card(number) for number in range(2)] == given


def test_fewer_cards_than_comfyuis_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(local.CARDS, "3")
    options = Options(state=tmp_path, start=(tmp_path, tmp_path))

    async def made() -> None:
        async with aiohttp.ClientSession() as session:
            local.LocalPool(options, session, "mark-")

    with pytest.raises(SettingsError, match="names 1 GPUs"):
        asyncio.run(made())
