"""The route that tells the editor what a LoRA source means."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from fetch.servers import lora
from runtime.client import HTTPStatusError
from runtime.session import Comfy

from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.store import Store

PATH = "/flux_hotswap/source"


def ask(comfy: Comfy, source: Any) -> dict[str, Any]:
    return comfy.client.post(PATH, {"source": source})


@pytest.mark.parametrize(
    ("source", "kind", "name"),
    [
        ("fofr/flux-pixar-cars", "replicate", "fofr/flux-pixar-cars"),
        ("https://replicate.com/a/b/versions/132c98d2", "replicate", "a/b:132c98d2"),
        ("hf.co/a/b", "huggingface", "a/b"),
        ("https://civitai.com/models/5?modelVersionId=6", "civitai", "5@6"),
        ("https://example.com/x.safetensors?token=s", "link", "https://example.com/x.safetensors"),
        ("https://example.com/x.tar", "tar", "https://example.com/x.tar"),
        ("sub/x.safetensors", "local", "sub/x.safetensors"),
    ],
)
def test_what_a_source_means(comfy: Comfy, source: str, kind: str, name: str) -> None:
    assert ask(comfy, source) == {"kind": kind, "name": name, "file": None, "size": None}


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_with_and_without_the_prefix(comfy: Comfy, prefix: str) -> None:
    assert comfy.client.post(prefix + PATH, {"source": "a/b"})["kind"] == "replicate"


@pytest.mark.parametrize(
    "source", ["", "   ", "../x.safetensors", "/etc/passwd.safetensors", "x.ckpt", "a/b\nc"]
)
def test_what_is_no_source_says_why(comfy: Comfy, source: str) -> None:
    answer = ask(comfy, source)
    assert list(answer) == ["error"]
    assert answer["error"]


def test_a_local_file(comfy: Comfy) -> None:
    path = comfy.server.models_dir / "loras" / "route.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lora())
    answer = ask(comfy, "route.safetensors")
    assert (answer["file"], answer["size"]) == ("route.safetensors", path.stat().st_size)
    assert str(comfy.server.base) not in json.dumps(answer)


def test_a_fetched_file_is_known_by_its_source(comfy: Comfy) -> None:
    data = lora(seed=77)
    link = comfy.files.file("/route/known.safetensors", data)
    assert ask(comfy, link)["file"] is None
    asked = len(comfy.files.asked("/route"))
    root = comfy.server.models_dir / "loras"
    root.mkdir(exist_ok=True)
    allow = AllowList.parse(f"127.0.0.1:{comfy.files.port}")
    settings = Settings(allow=allow, reserve_bytes=0)
    fetch(link, store=Store(root, settings), settings=settings)
    answer = ask(comfy, link)
    assert answer["file"].startswith("flux-hotswap/")
    assert answer["size"] == len(data)
    before = len(comfy.files.asked("/route"))
    assert before > asked
    ask(comfy, link)
    assert len(comfy.files.asked("/route")) == before, "asking goes nowhere"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"source": "a/b"}', {"Content-Type": "text/plain"}, 415),
        (b"source=a/b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"nonsense", {"Content-Type": "application/json"}, 400),
        (b"[1]", {"Content-Type": "application/json"}, 400),
        (b'{"source": 5}', {"Content-Type": "application/json"}, 400),
        (b'{"source": "' + b"a" * 5000 + b'"}', {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        (b"{}", {"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
    ],
)
def test_refusals(comfy: Comfy, body: bytes, headers: dict[str, str], status: int) -> None:
    request = urllib.request.Request(  # noqa: S310 - the address is our own server's
        comfy.server.url + PATH, data=body, headers=headers, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    with refused.value as answer:
        assert answer.status == status


def test_it_is_no_get(comfy: Comfy) -> None:
    with pytest.raises(HTTPStatusError, match=r"HTTP 40[45]"):
        comfy.client.get(PATH)
