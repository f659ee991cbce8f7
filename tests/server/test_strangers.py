"""What strangers send to the server: refused in words, and nothing secret or huge is kept."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import lora as lora_bytes
from graphs import form_graph
from mini_flux import loras
from PIL import Image
from runtime.archive import build
from runtime.client import Client, PromptRejectedError
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import PACK_NAME, ComfyServer
from runtime.session import Comfy

from flux_hotswap.ops import metadata
from flux_hotswap.prediction.fill import Prompt
from flux_hotswap.prediction.spec import FIELDS, Kind

SMALL: dict[str, Any] = {"prompt": "a star", "aspect_ratio": "custom", "width": 256, "height": 256}
SMALL |= {"num_inference_steps": 1, "seed": 5, "disable_safety_checker": True}
ROUTE = "/flux_hotswap/source"
HALF = "a \ud800 cat"
SECRET = "s3cr3tS3CR3T"  # noqa: S105 - none


def graph(name: str = "flux_lora_schema", **fields: Any) -> Prompt:
    """A shipped graph whose form has these values, as an API client writes them."""
    return form_graph({**SMALL, **fields}, name)


def inputs(prompt: Prompt, class_type: str) -> dict[str, Any]:
    return next(node["inputs"] for node in prompt.values() if node["class_type"] == class_type)


def refusals(client: Client, prompt: Prompt) -> list[str]:
    with pytest.raises(PromptRejectedError) as failed:
        client.run(prompt)
    return [e["details"] for node in failed.value.node_errors.values() for e in node["errors"]]


# --- the saved file ---


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_the_saved_graph_has_neither_queries_nor_bytes(comfy: Comfy, output_format: str) -> None:
    """Also where the LoRA or the picture was given so, in the prompt and in the workflow."""
    data = loras.as_bytes(loras.diffusers(loras.blocks()))
    link = comfy.files.file("/strangers/a.safetensors", data)
    given = {
        "lora": f"{link}?Policy={SECRET}&%74oken={SECRET}#jwt={SECRET}",
        "extra_lora": "data:;base64," + base64.b64encode(data).decode(),
        "image": "data:image/png;base64," + base64.b64encode(png()).decode(),
        "output_format": output_format,
    }
    prompt = graph(**given)
    workflow = {"nodes": [{"id": 1, "widgets_values": [3, True, *given.values()]}], "version": 0.4}
    result = comfy.client.run(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    (entry,) = result.images()
    texts = metadata.read(Image.open(BytesIO(comfy.client.view(entry))))
    whole = "\n".join(texts.values())
    assert SECRET not in whole
    assert given["extra_lora"][-60:] not in whole
    assert given["image"][-60:] not in whole
    kept: Any = json.loads(texts["prompt"])
    form = kept["1"]["inputs"]
    assert form.pop("lora") == link
    assert form.pop("extra_lora").startswith(f"data:({len(data)} bytes, sha256 ")
    assert form.pop("image").startswith(f"data:(image/png, {len(png())} bytes, sha256 ")
    for name in ("lora", "extra_lora", "image"):
        del prompt["1"]["inputs"][name]
    assert form.items() >= prompt["1"]["inputs"].items(), "the graph is otherwise unchanged"
    assert {key: node for key, node in kept.items() if key != "1"}.keys() == prompt.keys() - {"1"}
    (node,) = json.loads(texts["workflow"])["nodes"]
    assert node["widgets_values"][:3] == [3, True, link]
    assert SECRET not in comfy.server.log_text()


def test_trigger_words_in_report_record_file_and_log(comfy: Comfy) -> None:
    phrase = "\x1b]0;owned\x07\x1b[2J\r\nTOK\u202e " * 20_000
    data = loras.as_bytes(loras.diffusers(loras.blocks()))
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"] = {"modelspec.trigger_phrase": phrase}
    text = json.dumps(head).encode()
    link = comfy.files.file(
        "/strangers/words.safetensors", len(text).to_bytes(8, "little") + text + data[8 + length :]
    )
    before = len(comfy.server.log_text())
    result = comfy.run(graph(lora=link))
    (record,) = result.shown("flux_hotswap")
    (word,) = record["loras"][0]["trigger_words"]
    assert word.isprintable()
    assert len(word) <= 500
    said = comfy.server.log_text()[before:]
    assert "\x1b" not in said
    assert len(said) < 20_000


@pytest.mark.parametrize(
    "source",
    [
        f"https://a.example/x.ckpt?token={SECRET}",
        f"https://anna:{SECRET}@a.example/x.safetensors",
        f"https://a.example/{'x' * 150}?q={'y' * 30}{SECRET}",
        f"http://[?{SECRET}",
        "data:;base64," + "!" * 10**6,
        "x" * 10**6,
    ],
    ids=lambda source: source[:40],
)
def test_what_is_refused_is_not_logged_whole(comfy: Comfy, source: str) -> None:
    before = len(comfy.server.log_text())
    (words,) = refusals(comfy.client, graph(lora=source))
    said = comfy.server.log_text()[before:]
    assert len(said) < 4000
    assert SECRET not in said + words


# --- half a character ---

TEXTS = [field.name for field in FIELDS if field.kind in (Kind.STRING, Kind.URI)]


@pytest.mark.parametrize("name", TEXTS)
def test_half_a_character_in_the_form(comfy: Comfy, name: str) -> None:
    words = refusals(comfy.client, graph(**{name: HALF}))
    assert any(f"{name}: holds half of a character" in word for word in words), words
    assert "UnicodeEncodeError" not in comfy.server.log_text()  # what ComfyUI logs of a refusal


@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("FluxHotswapLora", "source"),
        ("FluxHotswapPrompt", "text"),
        ("FluxHotswapSave", "filename_prefix"),
        ("FluxHotswapLoader", "dev_file"),
        ("FluxHotswapSave", "output_format"),
        ("FluxHotswapInputs", "aspect_ratio"),
    ],
)
def test_half_a_character_elsewhere(comfy: Comfy, class_type: str, name: str) -> None:
    prompt = graph()
    own = inputs(prompt, class_type)
    if class_type != "FluxHotswapLoader":
        own.pop("request", None)
    own[name] = HALF
    assert refusals(comfy.client, prompt)


def test_half_a_character_through_a_wire(comfy: Comfy) -> None:
    """No check of a prompt sees it; the node says what is wrong."""
    comfy.expect_traceback("holds half of a character")
    prompt = graph(prompt=["text", 0])
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": HALF}}
    with pytest.raises(Exception, match="holds half of a character"):
        comfy.run(prompt)


# --- prefixes ---


@pytest.mark.parametrize(
    "prefix",
    ["a/" * 2000 + "a", "a/" * 33 + "a", ("b" * 190 + "/") * 6, "a" * 10**6, "é/" * 400, "\ud800"],
    ids=lambda prefix: f"{ascii(prefix)[:20]} {len(prefix)}",
)
def test_a_prefix_that_no_system_takes(comfy: Comfy, prefix: str) -> None:
    prompt = graph()
    inputs(prompt, "FluxHotswapSave")["filename_prefix"] = prefix
    (words,) = refusals(comfy.client, prompt)
    assert "filename_prefix" in words
    assert len(words) < 600


def test_the_deepest_prefix(comfy: Comfy) -> None:
    prompt = graph()
    inputs(prompt, "FluxHotswapSave")["filename_prefix"] = "deep/" * 32 + "a"
    (entry,) = comfy.run(prompt).images()
    assert entry["subfolder"].count("deep") == 32


# --- the route ---

JSON = {"Content-Type": "application/json"}
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "deep": (b'{"source":' + b"[" * 10_000 + b"]" * 10_000 + b"}", JSON),
    "deep and short": (b"[" * 30_000, JSON),
    "no such charset": (
        b'{"source": "a/b"}',
        {"Content-Type": "application/json; charset=nonsense"},
    ),
    "rot13": (b'{"source": "a/b"}', {"Content-Type": "application/json; charset=rot13"}),
    "hex": (b'{"source": "a/b"}', {"Content-Type": "application/json; charset=hex"}),
    "utf-16": (
        '{"source": "a/b"}'.encode("utf-16"),
        {"Content-Type": "application/json; charset=utf-16"},
    ),
    "no utf-8": (b'{"source": "\xff"}', JSON),
    "a number of many digits": (b'{"source": ' + b"9" * 5000 + b"}", JSON),
    "long": (b'{"source": "a/b", "x": "' + b"x" * 10**7 + b'"}', JSON),
    "empty": (b"", JSON),
    "encoded": (b"\x1f\x8b\x00", {**JSON, "Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize(("body", "headers"), BODIES.values(), ids=BODIES)
def test_what_the_route_cannot_read(comfy: Comfy, body: bytes, headers: dict[str, str]) -> None:
    before = len(comfy.server.log_text())
    status, said = post(comfy.server.url + ROUTE, body, headers)
    assert status == 400
    assert said
    assert "Traceback" not in comfy.server.log_text()[before:]


@pytest.mark.parametrize(
    "source",
    ["\ud800", "a/b\ud800", "\ud800.safetensors", "x" * 4000 + ".safetensors", "a\0.safetensors"],
    ids=lambda source: ascii(source)[:20],
)
def test_odd_sources_are_answered(comfy: Comfy, source: str) -> None:
    status, said = post(comfy.server.url + ROUTE, json.dumps({"source": source}).encode(), JSON)
    assert status == 200
    assert json.loads(said).keys() in ({"error"}, {"kind", "name", "file", "size"})


@pytest.mark.parametrize(
    "file", ["a\0.safetensors", "a" * 4000 + ".safetensors", "\ud800.safetensors"]
)
def test_an_index_that_somebody_edited(comfy: Comfy, file: str) -> None:
    from flux_hotswap.files.addresses import AllowList
    from flux_hotswap.files.settings import Settings
    from flux_hotswap.lora_fetch.fetch import fetch
    from flux_hotswap.lora_fetch.store import Store

    link = comfy.files.file("/strangers/index.safetensors", lora_bytes(seed=5))
    root = comfy.server.models_dir / "loras"
    root.mkdir(exist_ok=True)
    settings = Settings(allow=AllowList.parse(f"127.0.0.1:{comfy.files.port}"), reserve_bytes=0)
    fetch(link, store=Store(root, settings), settings=settings)
    path = root / "flux-hotswap" / "index.json"
    document = json.loads(path.read_text())
    for entry in document["loras"].values():
        entry["file"] = file
    path.write_text(json.dumps(document))
    status, said = post(comfy.server.url + ROUTE, json.dumps({"source": link}).encode(), JSON)
    assert status == 200
    assert json.loads(said)["file"] is None
    path.unlink()


# --- two copies ---

OTHER = "flux-hotswap-copy"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("twice")
    archive = build(tmp_path_factory.mktemp("archive") / "node.zip")
    for name in (PACK_NAME, OTHER):
        shutil.unpack_archive(archive, base / "custom_nodes" / name)
    with ComfyServer(find_comfyui(), models=small_models(), base=base, pack=False) as server:
        yield server


def test_two_copies_say_so_in_one_line(twice: ComfyServer) -> None:
    log = twice.log_text()
    (line,) = [line for line in log.splitlines() if "is installed twice" in line]
    assert line.count(str(Path("custom_nodes", PACK_NAME))) == 2, "both folders are named"
    assert OTHER in line
    assert "Traceback" not in log


def test_one_of_two_copies_works_alone(twice: ComfyServer) -> None:
    client = Client(twice.url)
    (picture,) = client.run(graph()).images()
    assert client.view(picture)[8:12] == b"WEBP"
    (words,) = refusals(client, graph(num_outputs=9))
    assert "give a whole number from 1 to 4" in words
    prompt = graph()
    inputs(prompt, "FluxHotswapLoader")["dev_file"] = "gone.safetensors"
    assert "gone.safetensors is not in" in refusals(client, prompt)[0]
    modules = {client.get(f"/object_info/{name}")[name]["python_module"] for name in OURS}
    assert len(modules) == 1


OURS = ("FluxHotswapInputs", "FluxHotswapSave", "FluxHotswapLora")

# --- parts ---


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def png() -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
