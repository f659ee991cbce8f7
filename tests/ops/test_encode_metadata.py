"""The texts inside a saved picture: read back, as the editor and others read them, no secrets."""

from __future__ import annotations

import io
import json
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from flux_hotswap.ops import metadata
from flux_hotswap.ops.encode import FORMATS, Format, encode, encode_batch, to_pil

GRAPH = {"prompt": {"3": {"inputs": {"text": "a café, 猫"}}}, "workflow": {"nodes": [1, 2]}}
RECORD = {"flux_hotswap": {"seed": 42, "prompt": "a café"}}
NOTE = 'a cat (sitting), "quoted"\n\nSteps: 28, Size: 1024x1024, Lora hashes: "a: 0123456789"'


def picture(height: int = 24, width: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth colours, [H,W,C] 0..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth[0].movedim(0, -1).contiguous()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("fmt", FORMATS)
def test_graph_reads_back(fmt: Format) -> None:
    extra = {f"pack {i}": {"n": i} for i in range(12)}
    texts = metadata.read(opened(encode(picture(), fmt, 80, {**GRAPH, **extra})))
    assert {key: json.loads(text) for key, text in texts.items()} == {**GRAPH, **extra}


def test_exif_tags_are_those_of_comfyui() -> None:
    exif = opened(encode(picture(), "webp", 80, GRAPH)).getexif()
    assert exif[0x0110].startswith("prompt:{")
    assert exif[0x010F].startswith("workflow:{")


def editor_png(data: bytes) -> dict[str, str]:
    """Read the chunks as the graph editor of ComfyUI 0.3.75 does: those of a name, the last."""
    position, found = 8, {}
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] in (b"tEXt", b"comf", b"iTXt"):
            key, _, value = data[position + 8 : position + 8 + length].partition(b"\0")
            found[key.decode()] = value.decode("utf-8", "replace")
        position += 12 + length
    return found


def editor_webp(data: bytes) -> dict[str, str]:
    """Walk the chunks as ComfyUI's graph editor does: without padding, to the first EXIF."""
    position = 12
    while position < len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            block = Image.Exif()
            block.load(data[position + 8 : position + 8 + length])
            return {v.split(":")[0]: v for v in block.values() if isinstance(v, str)}
        position += 8 + length
    return {}


@pytest.mark.parametrize("note", ["", NOTE])
@pytest.mark.parametrize("channels", [3, 4])
def test_editor_finds_the_graph_in_webp(channels: int, note: str) -> None:
    """Odd alpha chunks among these sizes would hide the graph without `_even_chunks`."""
    for side in range(20, 36):
        image = picture(side, side + 7, channels, seed=side)
        texts = metadata.pack(GRAPH, parameters=note)
        data = encode_batch(image[None], "webp", 60, texts)[0].data
        assert metadata.read(opened(data)).get("parameters", "") == note
        assert set(editor_webp(data)) == {"prompt", "workflow"}, side
        if channels == 4:
            alpha = np.asarray(opened(data))[..., 3]
            assert (alpha == np.asarray(to_pil(image)[0])[..., 3]).all()


def test_large_graph_stays_in_webp_and_png_and_leaves_jpg() -> None:
    large = {"prompt": {}, "workflow": {"text": "x" * 200_000}}
    for fmt in ("webp", "png"):
        assert set(metadata.read(opened(encode(picture(), fmt, 80, large)))) == set(large)
    (saved,) = encode_batch(picture()[None], "jpg", 80, metadata.pack(large))
    assert metadata.read(opened(saved.data)) == {}
    assert saved.data == encode(picture(), "jpg", 80)
    assert "choose png or webp" in saved.warnings[0]


@pytest.mark.parametrize("size", [65_400, 65_470, 65_533, 65_600])
def test_jpg_around_the_limit(size: int) -> None:
    (saved,) = encode_batch(picture()[None], "jpg", 80, metadata.Texts({"prompt": "x" * size}))
    kept = metadata.read(opened(saved.data))
    assert bool(kept) != bool(saved.warnings)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "note",
    [
        pytest.param(NOTE, id="latin"),
        pytest.param("é\xa0ÿ", id="latin-1"),
        pytest.param("猫, 🐈\nSteps: 3", id="unicode"),
        pytest.param("one\r\ntwo\n\n\tthree\n", id="line ends"),
        pytest.param("x", id="one letter"),
        pytest.param("parameters:{}", id="looks like a key"),
    ],
)
def test_parameters_read_back(fmt: Format, note: str) -> None:
    texts = metadata.pack({**GRAPH, **RECORD}, parameters=note)
    (saved,) = encode_batch(picture()[None], fmt, 80, texts)
    found = metadata.read(opened(saved.data))
    assert found.pop("parameters") == note
    assert {key: json.loads(text) for key, text in found.items()} == {**GRAPH, **RECORD}
    (alone,) = encode_batch(picture()[None], fmt, 80, metadata.pack(None, parameters=note))
    assert metadata.read(opened(alone.data)) == {"parameters": note}


@pytest.mark.parametrize(("note", "kind"), [("é", b"tEXt"), ("猫", b"iTXt")])
def test_parameters_in_png_are_a_text_chunk(note: str, kind: bytes) -> None:
    (saved,) = encode_batch(picture()[None], "png", 80, metadata.pack(GRAPH, parameters=note))
    assert kind + b"parameters\0" in saved.data
    assert opened(saved.data).info["parameters"] == note


@pytest.mark.parametrize("note", [NOTE, "猫"])
def test_editor_finds_the_graph_in_png(note: str) -> None:
    """It would take a file with `parameters` for A1111's, and the graph would be lost."""
    (saved,) = encode_batch(picture()[None], "png", 80, metadata.pack(GRAPH, parameters=note))
    found = editor_png(saved.data)
    assert not found["parameters"]
    assert json.loads(found["workflow"]) == GRAPH["workflow"]


def directory(block: bytes, start: int) -> dict[int, tuple[int, bytes]]:
    """Return type and value of the entries of a big-endian TIFF directory."""
    (count,) = struct.unpack_from(">H", block, start)
    found: dict[int, tuple[int, bytes]] = {}
    for index in range(count):
        tag, kind, length, place = struct.unpack_from(">HHII", block, start + 2 + 12 * index)
        size = length * (4 if kind == 4 else 1)
        at = place if size > 4 else start + 10 + 12 * index
        assert at % 2 == 0  # TIFF wants it, and some readers check
        found[tag] = (kind, block[at : at + size])
    assert list(found) == sorted(found)
    assert block[start + 2 + 12 * count :][:4] == bytes(4)
    return found


@pytest.mark.parametrize("note", ["Steps: 1", "odd", "猫"])
def test_parameters_in_exif_are_as_a1111_writes_them(note: str) -> None:
    block = metadata.exif(metadata.pack(GRAPH, parameters=note))
    assert block.startswith(b"Exif\0\0MM\0*\0\0\0\x08")
    first = directory(block[6:], 8)
    assert first[0x0110] == (2, b"prompt:" + json.dumps(GRAPH["prompt"]).encode() + b"\0")
    kind, pointer = first[0x8769]
    inner = directory(block[6:], int.from_bytes(pointer, "big"))
    assert kind == 4
    assert inner == {0x9286: (7, b"UNICODE\0" + note.encode("utf-16-be"))}


@pytest.mark.parametrize("fmt", FORMATS)
def test_control_characters_do_not_break_a_file(fmt: Format) -> None:
    note = "".join(map(chr, range(0x100))) + "\ud800\udc00 end"
    texts = metadata.pack(GRAPH, parameters=note)
    (saved,) = encode_batch(picture()[None], fmt, 80, texts)
    kept = metadata.read(opened(saved.data))["parameters"]
    assert len(kept) == len(note)
    changed = {old for old, new in zip(note, kept, strict=True) if old != new}
    assert {new for old, new in zip(note, kept, strict=True) if old != new} == {"\ufffd"}
    assert "\0" in changed
    assert not changed & set("\t\n\r é~")
    assert set(metadata.read(opened(saved.data))) == {*GRAPH, "parameters"}


def test_a_key_of_the_graph_does_not_replace_the_parameters() -> None:
    texts = metadata.pack({"parameters": {"a": 1}, "prompt": 2}, parameters=NOTE)
    assert dict(texts.items) == {"prompt": "2"}
    assert texts.parameters == NOTE
    assert "left out" in texts.warnings[0]
    assert dict(metadata.pack({"parameters": 1}).items) == {"parameters": "1"}


HUGE = "x" * 70_000


@pytest.mark.parametrize("fmt", ["png", "webp"])
def test_png_and_webp_keep_everything(fmt: Format) -> None:
    graph = {"prompt": HUGE, "workflow": HUGE, "pack": HUGE, "flux_hotswap": HUGE}
    (saved,) = encode_batch(picture()[None], fmt, 80, metadata.pack(graph, parameters=HUGE))
    assert set(metadata.read(opened(saved.data))) == {*graph, "parameters"}
    assert saved.warnings == ()


@pytest.mark.parametrize(
    ("graph", "record", "note", "stays", "says"),
    [
        pytest.param(
            HUGE,
            "r",
            "n",
            {"flux_hotswap", "parameters"},
            "without the workflow, with the record of the run and the parameters text;",
            id="the graph goes first",
        ),
        pytest.param(HUGE, "r", "", {"flux_hotswap"}, "with the record of", id="no parameters"),
        pytest.param(HUGE, None, "n", {"parameters"}, "with the parameters text;", id="no record"),
        pytest.param(
            "g",
            "r" * 40_000,
            "n" * 20_000,
            {"flux_hotswap"},
            "without the workflow and the parameters text, with the record of the run;",
            id="then the parameters",
        ),
        pytest.param(
            None, "r", HUGE, {"flux_hotswap"}, "without the parameters text, with", id="no graph"
        ),
        pytest.param(
            "g",
            HUGE,
            "n",
            {"parameters"},
            "without the workflow and the record of the run, with the parameters text;",
            id="a record too large by itself",
        ),
        pytest.param(
            "g",
            HUGE,
            HUGE,
            set(),
            "without the workflow and the record of the run and the parameters text;",
            id="all too large",
        ),
    ],
)
def test_what_stays_in_jpg(
    graph: str | None, record: str | None, note: str, stays: set[str], says: str
) -> None:
    given = {"prompt": graph, "pack": graph, "flux_hotswap": record}
    kept = {key: value for key, value in given.items() if value is not None}
    texts = metadata.pack(kept, parameters=note)
    (saved,) = encode_batch(picture()[None], "jpg", 80, texts)
    found = metadata.read(opened(saved.data))
    assert set(found) == stays
    assert found.get("parameters", note) == note
    assert json.loads(found.get("flux_hotswap", json.dumps(record))) == record
    (warning,) = saved.warnings
    assert says in warning
    assert warning.endswith("choose png or webp to keep it all")


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_jpg_is_filled_to_the_last_byte(room: int) -> None:
    empty = len(metadata.exif(metadata.pack({"flux_hotswap": ""}, parameters=NOTE)))
    record = "r" * ((metadata.JPEG_EXIF_LIMIT - empty) // 2 * 2 - 2 * room)
    texts = metadata.pack({"flux_hotswap": record}, parameters=NOTE)
    (saved,) = encode_batch(picture()[None], "jpg", 80, texts)
    found = set(metadata.read(opened(saved.data)))
    assert found == ({"flux_hotswap", "parameters"} if room >= 0 else {"flux_hotswap"})
    assert bool(saved.warnings) == (room < 0)


def test_no_metadata_means_none() -> None:
    for fmt in FORMATS:
        data = encode(picture(), fmt, 80)
        assert metadata.read(opened(data)) == {}
        assert b"xif" not in data


def test_nan_in_the_graph_becomes_null() -> None:
    texts = metadata.pack({"prompt": {"is_changed": [math.nan, math.inf, 1.5]}})
    assert json.loads(texts.items["prompt"]) == {"is_changed": [None, None, 1.5]}


@pytest.mark.parametrize("key", ["", "a:b", "x" * 80, "naïve", "tab\t"])
def test_keys_no_format_can_hold(key: str) -> None:
    texts = metadata.pack({key: 1, "prompt": 2})
    assert dict(texts.items) == {"prompt": "2"}
    assert "left out" in texts.warnings[0]


def test_values_that_are_not_json() -> None:
    texts = metadata.pack({"prompt": object(), "workflow": {}})
    assert set(texts.items) == {"workflow"}
    assert "not JSON" in texts.warnings[0]


@pytest.mark.parametrize(
    ("value", "gone"),
    [
        ("hf_abcdefghijklmnopqrstuvwx", "hf_abc"),
        ("https://civitai.com/api/download/models/7?type=Model&token=0123456789abcdef", "012345"),
        ("https://user:pass@example.com/a.safetensors", "user:pass"),
        ("https://x.s3.com/a?X-Amz-Signature=abcdef12&n=1", "abcdef12"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ({"civitai_api_token": "s3cr3t", "seed": 1}, "s3cr3t"),
        ({"deep": [{"api_key": "s3cr3t"}]}, "s3cr3t"),
        ("/home/anna/ComfyUI/models/a.safetensors", "anna"),
        ("see file:///home/anna/x.png", "anna"),
    ],
)
def test_secrets_and_the_home_folder_stay_out(value: object, gone: str) -> None:
    text = metadata.pack({"workflow": {"w": [value]}}, home="/home/anna").items["workflow"]
    assert gone not in text
    if isinstance(value, str):
        texts = metadata.pack({}, parameters=f"see {value}\nSteps: 3", home="/home/anna")
        assert gone not in texts.parameters
        assert texts.parameters.endswith("\nSteps: 3")


@pytest.mark.parametrize(
    "value",
    [
        "a token of love",
        "https://civitai.com/models/7?modelVersionId=9",
        "owner/name@main",
        {"seed": 3, "tokens": 77, "token": ""},
        "/home/annabel/x",
        "the monkey=banana question?",
    ],
)
def test_ordinary_values_stay(value: object) -> None:
    text = metadata.pack({"workflow": value}, home="/home/anna").items["workflow"]
    assert json.loads(text) == value
    if isinstance(value, str):
        assert metadata.pack({}, parameters=value, home="/home/annabel/y").parameters == value
