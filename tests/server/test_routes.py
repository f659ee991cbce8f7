"""The routes that tell the editor what a LoRA is, which are here, and how long a prompt is."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from fetch.servers import lora
from mini_flux import loras
from runtime.client import HTTPStatusError
from runtime.comfyui import find_comfyui
from runtime.session import Comfy
from transformers import CLIPTokenizer, T5Tokenizer

from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.store import Store

PATH = "/flux_hotswap/source"
SUGGEST = "/flux_hotswap/suggest"
TOKENS = "/flux_hotswap/tokens"
HEAD = {"software": '{"name": "ai-toolkit", "version": "0.7.8"}'}
WIDTH = 3072
QUERY = "transformer.transformer_blocks.3.attn.to_q"


def ask(comfy: Comfy, source: Any) -> dict[str, Any]:
    return comfy.client.post(PATH, {"source": source})


def look(comfy: Comfy, source: str) -> Any:
    return comfy.client.post(PATH, {"source": source, "inside": True})["inside"]


def tensors(width: int = WIDTH, *, rank: int = 4, module: str = QUERY) -> dict[str, torch.Tensor]:
    down, up = torch.full((rank, width), 0.01), torch.full((width, rank), 0.01)
    return {
        f"{module}.lora_A.weight": down,
        f"{module}.lora_B.weight": up,
        f"{module}.alpha": torch.tensor(2.0),
    }


def put(
    comfy: Comfy, name: str, state: dict[str, torch.Tensor], head: dict[str, str] | None = None
) -> Path:
    path = comfy.server.models_dir / "loras" / name
    path.parent.mkdir(exist_ok=True)
    loras.write(state, path, head)
    return path


def fetched(comfy: Comfy, link: str) -> None:
    root = comfy.server.models_dir / "loras"
    root.mkdir(exist_ok=True)
    allow = AllowList.parse(f"127.0.0.1:{comfy.files.port}")
    settings = Settings(allow=allow, reserve_bytes=0)
    fetch(link, store=Store(root, settings), settings=settings)


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
    fetched(comfy, link)
    answer = ask(comfy, link)
    assert answer["file"].startswith("flux-hotswap/")
    assert answer["size"] == len(data)
    before = len(comfy.files.asked("/route"))
    assert before > asked
    ask(comfy, link)
    assert len(comfy.files.asked("/route")) == before, "asking goes nowhere"


def test_what_a_file_is(comfy: Comfy) -> None:
    state = {**tensors(), "transformer.nowhere.lora_A.weight": torch.ones(4, 4)}
    phrase = {"modelspec.trigger_phrase": "m1x\x1b dog"}
    path = put(comfy, "inside.safetensors", state, {**HEAD, **phrase})
    assert look(comfy, "inside.safetensors") == {
        "kind": "LoRA",
        "rank": "4",
        "alpha": "2",
        "trainer": "ai-toolkit 0.7.8",
        "family": "diffusers",
        "keys": 4,
        "matched": 3,
        "left": "transformer.nowhere.lora_A.weight",
        "refused": None,
        "words": ["m1x  dog"],
    }
    assert "inside" not in ask(comfy, path.name), "only who asks for it waits for it"


def test_a_file_that_became_another_one_is_looked_at_again(comfy: Comfy) -> None:
    path = put(comfy, "changes.safetensors", tensors())
    assert look(comfy, path.name)["rank"] == "4"
    put(comfy, path.name, tensors(rank=8))
    assert look(comfy, path.name)["rank"] == "8"


def test_a_file_is_read_once(comfy: Comfy) -> None:
    """Its bytes are changed behind the server's back, with the size and time of before."""
    path = put(comfy, "once.safetensors", tensors())
    first, state = look(comfy, path.name), path.stat()
    path.write_bytes(b"\0" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert look(comfy, path.name) == first
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert "cannot be used" in look(comfy, path.name)["refused"]


def nans() -> dict[str, torch.Tensor]:
    state = tensors()
    state[f"{QUERY}.lora_B.weight"][5, 1] = torch.nan
    return state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (nans(), "holds numbers that are infinite or none"),
        (tensors(64), "is made for a model of another size"),
        (tensors(16, module="mystery.block"), "none of its 3 keys matches"),
        (
            {
                k: t
                for i in range(60)
                for k, t in tensors(
                    16, rank=1, module=f"transformer.transformer_blocks.{i}.attn.to_q"
                ).items()
            },
            "it is made for Qwen-Image, not for FLUX.1",
        ),
    ],
    ids=["not finite", "another size", "no known names", "another model"],
)
def test_what_is_refused_is_told(comfy: Comfy, state: dict[str, torch.Tensor], words: str) -> None:
    put(comfy, "refused.safetensors", state)
    told = look(comfy, "refused.safetensors")
    assert words in told["refused"]
    assert told["kind"] == "LoRA"


def test_a_damaged_file_is_told_without_its_place(comfy: Comfy) -> None:
    path = put(comfy, "damaged.safetensors", tensors())
    path.write_bytes(path.read_bytes()[:-1])
    told = look(comfy, path.name)
    assert told["words"] == []
    assert "damaged.safetensors cannot be used" in told["refused"]
    assert str(comfy.server.base) not in told["refused"]


def test_long_names_of_a_file_are_cut(comfy: Comfy) -> None:
    name = "transformer." + "long\n" * 5000
    put(comfy, "long.safetensors", {**tensors(), name: torch.ones(2)}, {"ss_network_module": name})
    told = look(comfy, "long.safetensors")
    assert all(len(told[key]) <= 500 and told[key].isprintable() for key in ("left", "trainer"))
    assert told["left"].startswith("transformer.long")


def test_only_what_is_here_is_looked_at(comfy: Comfy) -> None:
    head = {"modelspec.trigger_phrase": "TOK"}
    link = comfy.files.file("/inside/known.safetensors", loras.as_bytes(tensors(), head))
    assert look(comfy, link) is None
    assert comfy.files.asked("/inside") == []
    assert look(comfy, "nowhere.safetensors") is None
    assert look(comfy, "../x.ckpt") is None
    fetched(comfy, link)
    before = len(comfy.files.asked("/inside"))
    told = look(comfy, link)
    assert (told["matched"], told["words"]) == (3, ["TOK"])
    assert len(comfy.files.asked("/inside")) == before


def suggest(comfy: Comfy, text: str) -> Any:
    return comfy.client.post(SUGGEST, {"text": text})


def test_what_is_here_is_suggested(comfy: Comfy) -> None:
    words = {"modelspec.trigger_phrase": "m1x dog"}
    path = put(comfy, "suggest/Ânna one.safetensors", tensors(64), words)
    put(comfy, "suggest/two.safetensors", tensors(64))
    (path.parent / "no_lora.ckpt").write_bytes(b"")
    (path.parent / "broken.safetensors").write_bytes(b"nothing")
    size, name = path.stat().st_size, "suggest/Ânna one.safetensors"
    one = {"source": name, "file": name, "size": size, "words": ["m1x dog"]}
    assert suggest(comfy, " ÂNNA  suggest ") == {"loras": [one], "more": 0}
    told = {lora["file"]: lora["words"] for lora in suggest(comfy, "suggest/")["loras"]}
    others: dict[str, list[str]] = {
        f"suggest/{other}.safetensors": [] for other in ("broken", "two")
    }
    assert told == {name: ["m1x dog"], **others}
    assert suggest(comfy, "m1x dog")["loras"] == [], "a file of one's own is found by its name"


def test_what_was_fetched_is_suggested_by_its_source_and_first(comfy: Comfy) -> None:
    head = {"modelspec.trigger_phrase": "z9y cat"}
    put(comfy, "aaa_known.safetensors", tensors(64))
    plain = comfy.files.file("/aaa_known.safetensors", loras.as_bytes(tensors(64), head))
    data = loras.as_bytes(tensors(64, rank=2), head)
    signed = f"{comfy.files.file('/bbb_known.safetensors', data)}?token=hush"
    for link in (plain, signed):
        fetched(comfy, link)
    told = suggest(comfy, "_known")
    assert "hush" not in json.dumps(told)
    assert str(comfy.server.base) not in json.dumps(told)
    second, first, last = told["loras"]
    assert (first["source"], first["words"]) == (plain, ["z9y cat"])
    assert second["source"] == second["file"], "without its secret the link is another one"
    assert second["file"].startswith("flux-hotswap/")
    assert last["source"] == "aaa_known.safetensors"
    assert suggest(comfy, "Z9Y")["loras"] == [second, first], "by its words"
    for found in (first, second):
        assert ask(comfy, found["source"])["file"] == found["file"]


def test_of_many_files_a_few_are_opened(comfy: Comfy) -> None:
    folder = comfy.server.models_dir / "loras" / "many"
    folder.mkdir(parents=True)
    for number in range(2000):
        (folder / f"{number:04}.safetensors").touch()
    try:
        suggest(comfy, "many")
        began = time.monotonic()
        told = suggest(comfy, "many/")
        assert time.monotonic() - began < 1, "24 ms where this was written"
        assert (len(told["loras"]), told["more"]) == (20, 1980)
        (last,) = suggest(comfy, "many/1999")["loras"]
        assert last["file"] == "many/1999.safetensors"
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "prompt",
    ["", "a fox", "(a fox:1.2), embedding:x", "ein Fuchs, 狐 🦊\n", "a fox " * 300, "x" * 16384],
    ids=["none", "short", "no weights", "unicode", "long", "longest"],
)
def test_tokens_are_those_of_comfyuis_tokenizers(comfy: Comfy, prompt: str) -> None:
    """Counted here from the files that ComfyUI brings, with what ends a prompt."""
    folder = find_comfyui().path / "comfy"
    t5 = T5Tokenizer.from_pretrained(folder / "text_encoders" / "t5_tokenizer")
    clip = CLIPTokenizer.from_pretrained(folder / "sd1_tokenizer")
    wanted = {"t5": len(t5(prompt)["input_ids"]), "clip": len(clip(prompt)["input_ids"])}
    assert comfy.client.post(TOKENS, {"prompt": prompt}) == wanted


@pytest.mark.parametrize("body", [{}, {"prompt": 5}, {"prompt": "x" * 16385}, {"source": "a/b"}])
def test_what_is_no_prompt_is_refused(comfy: Comfy, body: dict[str, Any]) -> None:
    with pytest.raises(HTTPStatusError, match=r"HTTP 400"):
        comfy.client.post(TOKENS, body)


@pytest.mark.parametrize("path", [PATH, SUGGEST, TOKENS])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"source": "a/b"}', {"Content-Type": "text/plain"}, 415),
        (b"source=a/b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"nonsense", {"Content-Type": "application/json"}, 400),
        (b"[1]", {"Content-Type": "application/json"}, 400),
        (b'{"source": 5}', {"Content-Type": "application/json"}, 400),
        (b'{"source": "a/b", "inside": 1}', {"Content-Type": "application/json"}, 400),
        (b'{"source": "' + b"a" * 5000 + b'"}', {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        (b"{}", {"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
    ],
)
def test_refusals(
    comfy: Comfy, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    request = urllib.request.Request(  # noqa: S310 - the address is our own server's
        comfy.server.url + path, data=body, headers=headers, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    with refused.value as answer:
        assert answer.status == status


@pytest.mark.parametrize("path", [PATH, SUGGEST, TOKENS])
def test_it_is_no_get(comfy: Comfy, path: str) -> None:
    with pytest.raises(HTTPStatusError, match=r"HTTP 40[45]"):
        comfy.client.get(path)


# What the API asks


def test_an_api_removes_its_own_pictures_and_nothing_else(comfy: Comfy) -> None:
    folder = comfy.server.output_dir / "flux_hotswap_api"
    folder.mkdir(exist_ok=True)
    ours, others = "0123456789ab-job-1_00001_.png", "ba9876543210-job-1_00001_.png"
    for name in (ours, others):
        (folder / name).write_bytes(b"")
    assert comfy.client.post("/flux_hotswap/drop", {"prefix": "0123456789ab-"}) == {"removed": 1}
    assert [(folder / name).exists() for name in (ours, others)] == [False, True]
    assert comfy.client.post("/flux_hotswap/drop", {"prefix": others[:19]}) == {"removed": 1}


@pytest.mark.parametrize("prefix", ["", "../../x", "0123456789ab-/..", None, 7, "0123456789ab"])
def test_no_other_prefix_is_taken(comfy: Comfy, prefix: object) -> None:
    with pytest.raises(HTTPStatusError, match="400"):
        comfy.client.post("/flux_hotswap/drop", {"prefix": prefix})
