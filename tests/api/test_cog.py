"""The routes of a Cog container, as code calls them that was written for the model's own server."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from api.caller import Caller, until_health
from api.checks import SCHEMA, picture, pixels, uri_bytes
from api.hosted import HostedApi
from api.site import IMAGE_SIZE, MARK, QUICK, SLOW, TOKENS, Site, bad_requests

Answer = requests.Response


class Container:
    """What a caller of a container does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """POST a prediction of the quick request, with these fields changed."""
        body = {"input": {**QUICK, **fields}}
        return requests.post(f"{self.url}/predictions", json=body, headers=headers, timeout=60)

    def cancel(self, prediction: str) -> Answer:
        return requests.post(f"{self.url}/predictions/{prediction}/cancel", timeout=60)

    def get(self, path: str) -> Answer:
        return requests.get(f"{self.url}{path}", timeout=60)

    def wait_for(self, status: str) -> None:
        """Wait until its health is this."""
        until_health(self.url, status)


@pytest.fixture
def cog(site: Site) -> Container:
    container = Container(site.open.url)
    container.wait_for("READY")
    return container


def drawn(answer: Answer, status: int = 200) -> dict[str, Any]:
    """The prediction that an answer holds, which drew one picture."""
    assert answer.status_code == status
    found = answer.json()
    assert found["status"] == "succeeded"
    return found


def test_a_prediction_is_answered_when_it_is_done(cog: Container) -> None:
    found = drawn(cog.run())
    (output,) = found["output"]
    picture(uri_bytes(output))
    assert "Using seed: 7\n" in found["logs"]
    assert found["metrics"]["predict_time"] > 0
    assert found["id"]


def test_the_same_request_draws_the_same_picture_as_the_hosted_api(
    cog: Container, site: Site
) -> None:
    (here,) = drawn(cog.run())["output"]
    url = f"{site.open.url}/v1/models/acme/plain/predictions"
    there = requests.post(url, json={"input": QUICK}, headers={"Prefer": "wait"}, timeout=60)
    (output,) = drawn(there, 201)["output"]
    assert pixels(uri_bytes(output)) == pixels(uri_bytes(here))


def test_several_pictures_in_a_form_that_was_asked_for(cog: Container) -> None:
    found = drawn(cog.run(num_outputs=2, output_format="png"))
    first, second = (uri_bytes(output) for output in found["output"])
    picture(first, "PNG")
    picture(second, "PNG")
    assert first != second


def test_a_picture_as_a_data_uri_is_the_start(cog: Container, site: Site) -> None:
    uri = "data:image/png;base64," + base64.b64encode(site.image.read_bytes()).decode()
    (output,) = drawn(cog.run(image=uri))["output"]
    picture(uri_bytes(output), size=IMAGE_SIZE)


def test_respond_async_is_answered_at_once(cog: Container, site: Site) -> None:
    name = uuid.uuid4().hex
    hook = {"webhook": f"{site.receiver.url}/{name}", "webhook_events_filter": ["completed"]}
    answer = requests.post(
        f"{cog.url}/predictions",
        json={"input": QUICK, **hook},
        headers={"Prefer": "respond-async"},
        timeout=60,
    )
    assert answer.status_code == 202
    assert answer.json()["status"] == "starting"
    (message,) = site.receiver.wait(name)
    told = message.prediction
    assert (told["id"], told["status"]) == (answer.json()["id"], "succeeded")
    picture(uri_bytes(told["output"][0]))


def test_the_same_id_again_is_the_same_prediction(cog: Container) -> None:
    name = uuid.uuid4().hex
    body = {"input": {**QUICK, **SLOW, "seed": int(name[:6], 16)}}
    url = f"{cog.url}/predictions/{name}"
    started = requests.put(url, json=body, headers={"Prefer": "respond-async"}, timeout=60)
    assert (started.status_code, started.json()["id"]) == (202, name)
    again = requests.put(url, json=body, timeout=60)
    assert (again.status_code, again.json()["id"]) == (202, name)
    assert again.json()["status"] in ("starting", "processing")
    assert again.json()["input"]["prompt"] == QUICK["prompt"]
    assert cog.cancel(name).status_code == 200


def test_an_id_in_the_body_that_is_another(cog: Container) -> None:
    body = {"id": "one", "input": QUICK}
    answer = requests.put(f"{cog.url}/predictions/other", json=body, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "id"]


def test_a_prediction_that_runs_is_canceled(cog: Container) -> None:
    answer = cog.run({"Prefer": "respond-async"}, **SLOW, seed=11)
    cog.wait_for("BUSY")
    canceled = cog.cancel(answer.json()["id"])
    assert (canceled.status_code, canceled.json()) == (200, {})
    cog.wait_for("READY")
    assert cog.cancel(answer.json()["id"]).status_code == 404


def test_to_cancel_what_is_not_there(cog: Container) -> None:
    answer = cog.cancel("nothing")
    assert (answer.status_code, answer.json()) == (404, {})


def test_a_caller_who_goes_cancels_what_was_asked_for(cog: Container, site: Site) -> None:
    before = len(site.comfy.server.log_text()), len(site.open.log_text())
    name = uuid.uuid4().hex
    body = json.dumps({"id": name, "input": {**QUICK, "num_inference_steps": 50, "seed": 12}})
    parts = urlsplit(cog.url)
    head = f"POST /predictions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", parts.port or 0)) as caller:
        caller.sendall((head + body).encode())
        cog.wait_for("BUSY")
    assert Caller(site.open).end(name)["status"] == "canceled"
    cog.wait_for("READY")
    assert "50/50" not in site.comfy.server.log_text()[before[0] :], "it was drawn all the same"
    assert "lost" not in site.open.log_text()[before[1] :]


def test_a_model_that_raised_is_an_answer_like_others(cog: Container, site: Site) -> None:
    answer = cog.run(lora="missing.safetensors")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "missing.safetensors" in answer.json()["error"]
    assert not answer.json().get("output")


@pytest.mark.parametrize(("name", "request_"), bad_requests(), ids=lambda value: str(value)[:30])
def test_a_wrong_field(cog: Container, name: str, request_: dict[str, Any]) -> None:
    answer = requests.post(f"{cog.url}/predictions", json={"input": request_}, timeout=60)
    assert answer.status_code == 422
    where = [each["loc"] for each in answer.json()["detail"]]
    assert where == [["body", "input", name.partition(" ")[0]]]
    assert all(each["msg"] and each["type"] for each in answer.json()["detail"])
    assert MARK not in answer.text


def test_several_wrong_fields_are_told_at_once(cog: Container) -> None:
    answer = cog.run(num_outputs=9, output_format="gif")
    assert answer.status_code == 422
    where = [each["loc"][-1] for each in answer.json()["detail"]]
    assert sorted(where) == ["num_outputs", "output_format"]


def test_a_field_that_is_unknown_is_dropped(cog: Container) -> None:
    drawn(cog.run(disco_mode=True))


def test_a_body_that_is_not_json(cog: Container) -> None:
    headers = {"Content-Type": "application/json"}
    url = f"{cog.url}/predictions"
    answer = requests.post(url, data=b"{prompt", headers=headers, timeout=60)
    assert answer.status_code == 400


def test_no_body_has_no_prompt(cog: Container) -> None:
    answer = requests.post(f"{cog.url}/predictions", json={}, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "input", "prompt"]


def test_what_it_says_of_itself(cog: Container) -> None:
    root = requests.get(cog.url, headers={"Accept": "application/json"}, timeout=60).json()
    assert root["predictions_url"] == "/predictions"
    health = cog.get(root["healthcheck_url"]).json()
    assert (health["status"], health["setup"]["status"]) == ("READY", "succeeded")
    schemas = cog.get(root["openapi_url"]).json()["components"]["schemas"]
    wanted = SCHEMA["components"]["schemas"]
    assert schemas["Input"]["properties"].keys() == wanted["Input"]["properties"].keys()
    assert schemas["Output"]["items"] == {"type": "string", "format": "uri"}


def test_shutdown_is_for_the_first_token_alone(site: Site) -> None:
    token = {"Authorization": f"Bearer {TOKENS[1]}"}
    answer = requests.post(f"{site.guarded.url}/shutdown", headers=token, timeout=60)
    assert answer.status_code == 403
    assert requests.get(f"{site.guarded.url}/livez", timeout=30).status_code == 200


def test_the_first_token_ends_the_server(site: Site, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(TOKENS), encoding="utf-8")
    with HostedApi(tmp_path, site.comfy.server.url, "--tokens", str(tokens)) as server:
        token = {"Authorization": f"Bearer {TOKENS[0]}"}
        assert requests.post(f"{server.url}/shutdown", headers=token, timeout=60).json() == {}
        assert server.wait() == 0


def test_shutdown_ends_the_server(site: Site, tmp_path: Path) -> None:
    with HostedApi(tmp_path, site.comfy.server.url) as server:
        answer = requests.post(f"{server.url}/shutdown", timeout=60)
        assert (answer.status_code, answer.json()) == (200, {})
        assert server.wait() == 0
