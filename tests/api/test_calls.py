"""What no client does by itself, and somebody will."""

from __future__ import annotations

import base64
import io
import json
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from api.caller import MODEL, QUICK, until_health
from api.hosted import HostedApi
from api.site import QUEUE, SLOW, TOKENS, Site


def encoded(cursor: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode()


def post(site: Site, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{site.open.url}{path}", json=body, headers=headers, timeout=90)


def noise() -> str:
    """A picture of noise as a data: URI, too long to stay within a job."""
    pixels = np.random.default_rng(3).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_a_picture_within_a_call_becomes_a_file(site: Site) -> None:
    data = noise()
    body = {"input": {**QUICK, "image": data, "prompt_strength": 0.5}}
    made = post(site, "/v1/models/acme/plain/predictions", body, Prefer="wait").json()
    assert made["status"] == "succeeded", made
    assert made["input"]["image"].startswith(f"{site.open.url}/v1/files/")
    assert requests.get(made["input"]["image"], timeout=30).json()["content_type"] == "image/png"
    assert not site.open.holds(data[4000:4100])


def test_what_was_drawn_is_drawn_on_by_its_address(site: Site) -> None:
    """Lists hold addresses, which ComfyUI may not fetch from its own machine."""
    body = {"input": {**QUICK, "seed": 82}}
    first = post(site, "/v1/models/acme/plain/predictions", body, Prefer="wait").json()
    page = requests.get(f"{site.open.url}/v1/predictions", timeout=30).json()["results"]
    (address,) = next(each["output"] for each in page if each["id"] == first["id"])
    assert address.startswith(f"{site.open.url}/v1/outputs/")
    body["input"] |= {"image": address, "prompt_strength": 0.5}
    made = post(site, "/v1/models/acme/plain/predictions", body, Prefer="wait").json()
    assert made["status"] == "succeeded", made
    assert made["input"]["image"].startswith(f"{site.open.url}/v1/files/"), "it outlives the first"
    gone = {**body["input"], "image": address[:-1]}
    answer = post(site, "/v1/models/acme/plain/predictions", {"input": gone})
    assert [each["field"] for each in answer.json()["invalid_fields"]] == ["input.image"]


def test_a_picture_within_a_call_is_kept_as_long_as_its_job(site: Site) -> None:
    body = {"input": {**QUICK, "image": noise(), "prompt_strength": 0.0}}
    made = post(site, "/v1/models/acme/plain/predictions", body, **{"Cancel-After": "20h"}).json()
    file = requests.get(made["input"]["image"], timeout=30).json()
    times = [datetime.fromisoformat(file[name]) for name in ("created_at", "expires_at")]
    assert times[1] - times[0] == timedelta(hours=21)


def test_a_broken_picture_within_a_call_is_refused(site: Site) -> None:
    body = {"input": {**QUICK, "image": noise()[:-5] + "!!!!!"}}
    answer = post(site, "/v1/models/acme/plain/predictions", body)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["invalid_fields"]] == ["input.image"]


def test_an_id_in_the_body_is_the_same_prediction_again(site: Site) -> None:
    """A Cog container takes the caller's id in the body too."""
    body = {"id": uuid.uuid4().hex, "input": {**QUICK, "seed": 77}}
    first, second = (post(site, "/predictions", body).json() for _ in range(2))
    assert first["status"] == "succeeded"
    assert first == second


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "https://example.com"}, 403, id="another site"),
        pytest.param({"Origin": "null"}, 403, id="a page without a place"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="told by the browser"),
        pytest.param({"Host": "example.com"}, 403, id="by a name that leads here"),
        pytest.param({}, 201, id="no browser"),
    ],
)
def test_pages_of_other_sites_may_not_call(
    site: Site, headers: dict[str, str], status: int
) -> None:
    body = {"input": {**QUICK, "seed": 78}}
    answer = post(site, "/v1/models/acme/plain/predictions", body, **headers)
    assert answer.status_code == status


ELSEWHERE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://example.com"}


def test_pages_of_other_sites_may_show_a_picture(site: Site) -> None:
    """Apps show what was drawn by its address, as they do with the service's."""
    body = {"input": {**QUICK, "seed": 81}}
    token = {"Authorization": f"Bearer {TOKENS[0]}", "Prefer": "wait"}
    url = f"{site.guarded.url}/v1/models/acme/plain/predictions"
    made = requests.post(url, json=body, headers=token, timeout=90).json()
    (output,) = made["output"]
    here = output.replace(site.front, site.guarded.url)
    shown = requests.get(here, headers=ELSEWHERE, timeout=30)
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/webp")
    assert requests.get(here.partition("?")[0], headers=ELSEWHERE, timeout=30).status_code == 403
    assert not {name for name in shown.headers if name.startswith("Access-Control")}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/?prediction=x", 200, id="the page"),
        pytest.param("/page/page.mjs", 200, id="the page's files"),
        pytest.param("/v1/predictions", 403, id="predictions"),
        pytest.param("/v1/files", 403, id="files"),
        pytest.param("/v1/webhooks/default/secret", 403, id="the secret"),
        pytest.param("/metrics", 403, id="metrics"),
    ],
)
def test_other_sites_may_lead_to_the_page_alone(site: Site, path: str, status: int) -> None:
    for api in (site.open, site.guarded):
        answer = requests.get(f"{api.url}{path}", headers=ELSEWHERE, timeout=30)
        assert answer.status_code == status


def test_its_own_page_may_call(site: Site) -> None:
    body = {"input": {**QUICK, "seed": 79}}
    origin = {"Origin": site.open.url, "Sec-Fetch-Site": "same-origin"}
    assert post(site, "/v1/models/acme/plain/predictions", body, **origin).status_code == 201


@pytest.mark.usefixtures("idle")
def test_what_found_no_room_is_a_new_prediction_when_it_is_made_again(site: Site) -> None:
    """Replicate 2.x does that by itself; the calls before it wanted pictures of their own."""
    body = {"input": {**QUICK, **SLOW}}
    del body["input"]["seed"]
    url = f"{site.guarded.url}/v1/models/acme/plain/predictions"
    token = {"Authorization": f"Bearer {TOKENS[0]}"}
    made: list[str] = []
    while (answer := requests.post(url, json=body, headers=token, timeout=30)).status_code == 201:
        made.append(answer.json()["id"])
    assert (answer.status_code, len(made) >= QUEUE) == (429, True)
    again = {**token, "x-stainless-retry-count": "1"}
    cancel(site, made.pop(), token)
    fresh, repeated = (
        requests.post(url, json=body, headers=again, timeout=30).json()["id"] for _ in range(2)
    )
    assert fresh not in made
    assert repeated == fresh, "the second time its answer was lost"
    for job in (*made, fresh):
        cancel(site, job, token)


def cancel(site: Site, job: str, token: dict[str, str]) -> None:
    url = f"{site.guarded.url}/v1/predictions/{job}/cancel"
    assert requests.post(url, headers=token, timeout=30).json()["status"] == "canceled"


@pytest.fixture
def idle(site: Site) -> None:
    """Nothing is drawn any more for the guarded API."""
    until_health(site.guarded.url, "READY")


def test_each_token_has_a_webhook_key_of_its_own(site: Site) -> None:
    """Who checks messages with it could sign them too, for another's receiver."""
    url = f"{site.guarded.url}/v1/webhooks/default/secret"
    keys = [
        requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).json()["key"]
        for token in (*TOKENS, TOKENS[0])
    ]
    assert keys[0] == keys[2] != keys[1]
    assert [len(base64.b64decode(key.removeprefix("whsec_"))) for key in keys] == [24, 24, 24]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_of_this_machine_reads_the_state(site: Site) -> None:
    state = site.open.state
    assert state.stat().st_mode & 0o077 == 0
    databases = list(state.glob("jobs.sqlite*"))
    assert len(databases) > 1, "its log lies beside it"
    assert [path.name for path in databases if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("cursor", encoded([10**400, "x"]), id="past all numbers"),
        pytest.param("cursor", encoded([1, "\ud800"]), id="half a character in it"),
        pytest.param("cursor", encoded([1]), id="one part of it"),
        pytest.param("cursor", "\u00e9", id="other letters"),
        pytest.param("created_after", "\ud800", id="half a character as a time"),
    ],
)
def test_a_query_that_is_none_is_refused_in_words(site: Site, name: str, text: str) -> None:
    query = urlencode({name: text}, errors="surrogatepass")
    answer = requests.get(f"{site.open.url}/v1/predictions?{query}", timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (422, 422)


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a\tb", b"a" * 256], ids=["no text", "tab", "long"])
def test_a_key_that_is_none_is_refused_in_words(site: Site, key: bytes) -> None:
    url = f"{site.open.url}/v1/models/acme/plain/predictions"
    headers = {"Idempotency-Key": key}
    answer = requests.post(url, json={"input": QUICK}, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (422, 422)


def test_nobody_who_listens_holds_up_the_end(site: Site, tmp_path: Path) -> None:
    with HostedApi(tmp_path, "http://127.0.0.1:1") as api:
        url = f"{api.url}/v1/models/{MODEL}/predictions"
        made = requests.post(url, json={"input": QUICK}, timeout=30).json()
        with (
            requests.get(made["urls"]["stream"], stream=True, timeout=30),
            ThreadPoolExecutor() as others,
        ):
            waits = others.submit(
                requests.post, url, json={"input": QUICK}, headers={"Prefer": "wait"}, timeout=90
            )
            until_many(api, 2)
            psutil.Process(api.pid).terminate()
            assert api.wait() == 0  # within `hosted.STOP_SECONDS`
            with pytest.raises(requests.ConnectionError):
                waits.result()


def until_many(api: HostedApi, many: int) -> None:
    """Wait until so many predictions have been taken."""
    end = time.monotonic() + 30
    while len(requests.get(f"{api.url}/v1/predictions", timeout=30).json()["results"]) < many:
        assert time.monotonic() < end
        time.sleep(0.02)  # between polls


def test_a_second_process_on_the_same_state_is_refused(site: Site) -> None:
    with (
        pytest.raises(AssertionError, match="is used by another API process"),
        HostedApi(site.open.state.parent, site.comfy.server.url),
    ):
        pass
