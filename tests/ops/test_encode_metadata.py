"""The graph inside a saved picture: read back, as the editor reads it, without secrets."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ops import metadata
from ops.encode import FORMATS, Format, encode, encode_batch, to_pil

GRAPH = {"prompt": {"3": {"inputs": {"text": "a café, 猫"}}}, "workflow": {"nodes": [1, 2]}}


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


@pytest.mark.parametrize("channels", [3, 4])
def test_editor_finds_the_graph_in_webp(channels: int) -> None:
    """Odd alpha chunks among these sizes would hide the graph without `_even_chunks`."""
    for side in range(20, 36):
        image = picture(side, side + 7, channels, seed=side)
        data = encode(image, "webp", 60, GRAPH)
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
