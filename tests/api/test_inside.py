"""The API inside ComfyUI, at /hotswap, in the ComfyUI of all tests."""

from __future__ import annotations

import asyncio
import base64
import io
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from aiohttp import ClientSession, web
from PIL import Image
from runtime.session import Comfy

from api.front import Front, make_certificate
from api.site import QUICK
from flux_hotswap.hosted_api.inside import mount, reached

MODEL = "black-forest-labs/flux-dev"

MEMORY = 'what="vram_total"'
"""Of a metric that is there once a ComfyUI was found ready and has told of its memory."""


def call(comfy: Comfy, method: str, path: str, **more: Any) -> requests.Response:
    return requests.request(method, f"{comfy.server.url}/hotswap{path}", timeout=90, **more)


def test_a_prediction(comfy: Comfy) -> None:
    body = {"input": {**QUICK, "output_format": "png"}}
    answer = call(
        comfy, "POST", f"/v1/models/{MODEL}/predictions", json=body, headers={"Prefer": "wait"}
    )
    told = answer.json()
    assert (answer.status_code, told["status"]) == (201, "succeeded")
    (output,) = told["output"]
    picture = Image.open(io.BytesIO(base64.b64decode(output.partition(",")[2])))
    assert (picture.format, picture.size) == ("PNG", (256, 256))
    assert told["urls"]["get"] == f"{comfy.server.url}/hotswap/v1/predictions/{told['id']}"
    assert requests.get(told["urls"]["get"], timeout=30).json()["output"] == [output]
    listed = call(comfy, "GET", "/v1/predictions").json()["results"][0]["output"]
    assert base64.b64decode(output.partition(",")[2]) == requests.get(listed[0], timeout=30).content


def test_an_uploaded_picture_is_drawn_from(comfy: Comfy, tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((320, 256)).save(tmp_path / "image.png")
    with (tmp_path / "image.png").open("rb") as file:
        sent = call(comfy, "POST", "/v1/files", files={"content": file}).json()
    body = {"input": {**QUICK, "image": sent["urls"]["get"], "output_format": "png"}}
    told = call(
        comfy, "POST", f"/v1/models/{MODEL}/predictions", json=body, headers={"Prefer": "wait"}
    ).json()
    assert told["status"] == "succeeded", told
    picture = Image.open(io.BytesIO(base64.b64decode(told["output"][0].partition(",")[2])))
    assert picture.size == (320, 256)


def test_the_page_and_the_state(comfy: Comfy) -> None:
    page = call(comfy, "GET", "/", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert call(comfy, "GET", "/readyz").json()["ready"] is True
    counts = call(comfy, "GET", "/metrics").text
    for name in ('predictions_total{status="succeeded"}', 'stored_bytes_total{what="outputs"}'):
        assert f"hotswap_{name} " in counts
    assert 'hotswap_stored_bytes_total{what="uploads"} ' in counts


def test_errors_are_the_apis_own(comfy: Comfy) -> None:
    answer = call(comfy, "GET", "/v1/predictions/nobody")
    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert call(comfy, "GET", "/v1/nothing").json()["title"] == "Not Found"
    cross = call(comfy, "GET", "/v1/account", headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403


@pytest.mark.parametrize(
    ("given", "host", "words"),
    [
        pytest.param("1", "0.0.0.0", "tokens are needed", id="open to others"),  # noqa: S104
        pytest.param("1", "127.0.0.1,0.0.0.0", "tokens are needed", id="open to others too"),
        pytest.param("--names /no/such.json", "127.0.0.1", "--names", id="a bad option"),
        pytest.param('--names "names.json', "127.0.0.1", "a quote has no end", id="a lone quote"),
        pytest.param("--comfyui http://127.0.0.1:1", "127.0.0.1", "remove them", id="another"),
    ],
)
def test_comfyui_starts_without_an_api_that_cannot_be(
    given: str, host: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = web.Application()
    asyncio.run(mount(app, given, host, 8188, tmp_path))
    assert words in caplog.text
    assert list(app.router.resources()) == []


def test_two_comfyuis_of_one_folder_have_one_api(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def whole() -> None:
        first, second = web.Application(), web.Application()
        await mount(first, "1", "127.0.0.1", 8188, tmp_path)
        await mount(second, "1", "127.0.0.1", 8189, tmp_path)
        assert "is used by another API process" in caplog.text
        assert [bool(list(app.router.resources())) for app in (first, second)] == [True, False]
        runner = web.AppRunner(first)
        await runner.setup()
        await runner.cleanup()
        caplog.clear()
        await mount(second, "1", "127.0.0.1", 8189, tmp_path)
        assert caplog.text == ""
        assert list(second.router.resources()), "the first has ended"
        runner = web.AppRunner(second)
        await runner.setup()
        await runner.cleanup()

    asyncio.run(whole())


def test_inside_a_comfyui_that_speaks_https(comfy: Comfy, tmp_path: Path) -> None:
    """It is called by its own address, which its certificate need not name."""
    with closing(Front(*make_certificate(tmp_path))) as front:
        front.lead_to(comfy.server.url)
        port = urlsplit(front.url).port
        assert port

        async def whole() -> None:
            app = web.Application()
            await mount(app, "1", "127.0.0.1", port, tmp_path, tls=True)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/hotswap/metrics"
            told = ""
            async with ClientSession() as session:
                # Until it has told of its memory: no call runs then. One by https that is given up
                # lives longer than this loop.
                for _ in range(500):
                    async with session.get(url) as answer:
                        told = await answer.text()
                    if MEMORY in told:
                        break
                    await asyncio.sleep(0.02)  # between polls
            await runner.cleanup()
            assert MEMORY in told, told
            assert 'hotswap_workers{state="up"} 1\n' in told

        asyncio.run(whole())


@pytest.mark.parametrize(
    ("listen", "host", "near"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost", "localhost"),
        ("0.0.0.0,::", "0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::", "::", "[::1]"),
        ("127.0.0.1,0.0.0.0", "0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("127.0.0.1, 192.168.1.5", "192.168.1.5", "127.0.0.1"),
        ("192.168.1.5", "192.168.1.5", "192.168.1.5"),
        ("fd00::5", "fd00::5", "[fd00::5]"),
    ],
)
def test_where_comfyui_listens(listen: str, host: str, near: str) -> None:
    assert reached(listen) == (host, near)
