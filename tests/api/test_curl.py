"""The commands of the hosted service's pages, with another address, as curl runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api import checks
from api.checks import picture, uri_bytes
from api.site import IMAGE_SIZE, QUICK, SLOW, TOKENS, VERSION, Site

JSON = ("-H", "Content-Type: application/json")
TOKEN = ("-H", f"Authorization: Bearer {TOKENS[0]}")


class Curl:
    """curl, silent, that knows who signed the certificate of the front."""

    def __init__(self, path: str, site: Site) -> None:
        self._start = [path, "-sS", "--noproxy", "*", "--cacert", str(site.certificate)]
        self.open, self.front = f"{site.open.url}/v1", f"{site.front}/v1"

    def bytes(self, *arguments: str | Path) -> bytes:
        """What it writes out."""
        command = [*self._start, *(str(each) for each in arguments)]
        return subprocess.run(command, check=True, capture_output=True, timeout=90).stdout

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.bytes(*arguments))

    def draw(self, url: str, *more: str, **fields: Any) -> Any:
        """Create a prediction of the quick request and wait for it."""
        body = json.dumps({"version": VERSION, "input": {**QUICK, **fields}})
        wait = ("-H", "Prefer: wait")
        return self.json("-X", "POST", *JSON, *wait, *more, "-d", body, f"{url}/predictions")


@pytest.fixture
def curl(site: Site) -> Curl:
    path = shutil.which("curl")
    if path is None:
        pytest.skip("waits for curl on this machine")
    return Curl(path, site)


def test_create_and_wait(curl: Curl) -> None:
    checks.prediction(curl.draw(curl.open), VERSION)


def test_create_and_get(curl: Curl) -> None:
    body = json.dumps({"version": f"acme/flux:{VERSION}", "input": QUICK})
    made = curl.json("-X", "POST", *JSON, *TOKEN, "-d", body, f"{curl.open}/predictions")
    assert made["status"] == "starting"
    # Its stream ends with it.
    assert curl.bytes("-N", made["urls"]["stream"]).endswith(b"data: {}\n\n")
    checks.prediction(curl.json(*TOKEN, made["urls"]["get"]), VERSION)


def test_cancel(curl: Curl) -> None:
    body = json.dumps({"input": {**QUICK, **SLOW, "seed": 13}})
    url = f"{curl.open}/models/acme/flux/predictions"
    made = curl.json("-X", "POST", *JSON, "-d", body, url)
    assert curl.json("-X", "POST", made["urls"]["cancel"])["id"] == made["id"]
    curl.bytes("-N", made["urls"]["stream"])
    assert curl.json(made["urls"]["get"])["status"] == "canceled"


def test_a_stream_is_of_events(curl: Curl) -> None:
    made = curl.draw(curl.open)
    head, _, text = curl.bytes("-i", "-N", made["urls"]["stream"]).decode().partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head.lower()
    events = [dict(_lines(block)) for block in text.split("\n\n") if "event: " in block]
    assert [each["event"] for each in events][-2:] == ["output", "done"]
    picture(uri_bytes(events[-2]["data"]))


def _lines(block: str) -> list[tuple[str, str]]:
    pairs = (line.partition(": ") for line in block.splitlines() if not line.startswith(":"))
    return [(name, value) for name, _, value in pairs]


def test_a_file_is_sent_and_named_as_input(curl: Curl, site: Site) -> None:
    content = f"content=@{site.image};type=image/png;filename=start.png"
    file = curl.json(*TOKEN, "-F", content, f"{curl.front}/files")
    assert (file["name"], file["content_type"]) == ("start.png", "image/png")
    made = curl.draw(curl.front, *TOKEN, image=file["urls"]["get"])
    (output,) = made["output"]
    picture(curl.bytes(output), size=IMAGE_SIZE)


def test_a_picture_is_fetched_without_a_token(curl: Curl, tmp_path: Path) -> None:
    (output,) = curl.draw(curl.front, *TOKEN)["output"]
    path = tmp_path / "picture.webp"
    head = curl.bytes("-D", "-", "-o", path, output).decode().lower()
    assert "content-type: image/webp" in head
    picture(path.read_bytes())
    wrong = output[:-1] + ("1" if output.endswith("0") else "0")
    assert curl.bytes("-o", tmp_path / "none", "-w", "%{http_code}", wrong) == b"403"


def test_the_older_word_for_a_token(curl: Curl) -> None:
    token = ("-H", f"Authorization: Token {TOKENS[1]}")
    assert curl.draw(curl.front, *token)["status"] == "succeeded"


@pytest.mark.parametrize("token", [(), ("-H", "Authorization: Bearer r8_none_of_the_tokens")])
def test_without_a_token(curl: Curl, token: tuple[str, ...]) -> None:
    answer = curl.draw(curl.front, *token)
    assert (answer["title"], answer["status"]) == ("Unauthenticated", 401)
    assert "r8_" not in answer["detail"]


def test_a_name_that_is_not_here(curl: Curl) -> None:
    for path in ("collections", "trainings", "nothing"):
        answer = curl.json(*TOKEN, f"{curl.front}/{path}")
        assert answer["status"] == 404
        assert answer["detail"]


def test_the_command_of_cogs_pages(curl: Curl) -> None:
    root = curl.open.removesuffix("/v1")
    body = json.dumps({"input": QUICK})
    found = curl.json(f"{root}/predictions", "-X", "POST", *JSON, "-d", body)
    picture(uri_bytes(found["output"][0]))
