"""What Python says, for the scripts to agree with: sizes, routes and requests."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from itertools import product
from typing import Any

import torch
from PIL import Image

from flux_hotswap.errors import RequestError
from flux_hotswap.ops import metadata
from flux_hotswap.ops.encode import encode_batch
from flux_hotswap.prediction.plan import make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.sizes import PRESETS, Size, custom_size, image_size, preset_size
from flux_hotswap.prediction.spec import FIELDS, MEGAPIXELS, Kind
from flux_hotswap.tools.editor_spec import EXACT

PICTURES = [
    (1, 1), (17, 1), (64, 48), (512, 512), (1023, 769), (1440, 1440), (1441, 1440), (2000, 1000),
    (3, 9000), (4032, 3024), (3024, 4032), (1920, 1080), (1439, 2879), (12345, 1), (7000, 6999),
]  # fmt: skip
RECORD = {"flux_hotswap": {"seed": 7}}
GRAPHS = {"prompt": {"3": {"inputs": {"text": "a: café, 猫"}}}, "workflow": {"nodes": [1, 2]}}
WRONG = {
    Kind.STRING: [7, True, ["a"], {}],
    Kind.URI: [7, False, ["a.png"]],
    Kind.ENUM: ["nothing", 1, True, ""],
    Kind.INTEGER: ["3", 2.5, True, [1]],
    Kind.NUMBER: ["3", False, [1.5]],
    Kind.BOOLEAN: [0, 1, "true", ""],
}


def vectors() -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "presets": [
            {"aspect_ratio": name, "megapixels": value, **_size(preset_size(name, value))}
            for name, value in product(PRESETS, MEGAPIXELS)
        ],
        "custom": [_size(custom_size(side, 1440)) | {"side": side} for side in range(256, 1441)],
        "pictures": [
            {"picture": {"width": width, "height": height}, **_size(image_size(width, height))}
            for width, height in PICTURES
        ],
        "steps": [
            {"model": model, "steps": steps, "needless": _has_hint(model, steps)}
            for model in ("dev", "schnell")
            for steps in range(1, 51)
        ],
        "requests": [_parsed(raw) for raw in requests()],
        "jpegs": {
            "editor": _saved(GRAPHS | RECORD, parameters="a fox\nSteps: 28"),
            "api": _saved({"prompt": GRAPHS["prompt"]} | RECORD),
            "too large": _saved({"workflow": "x" * metadata.JPEG_EXIF_LIMIT} | RECORD),
            "without": _saved({}),
            "of another program": _saved(GRAPHS),
            "little-endian": _written_by_pillow(GRAPHS | RECORD),
        },
        "graphs": GRAPHS,
    }


def requests() -> list[dict[str, Any]]:
    """Return requests of every kind, valid and not."""
    full = {
        "prompt": "a (red:1.2) fox", "image": "fox.png", "mask": "mask.png", "aspect_ratio": "21:9",
        "height": 256, "width": 1440, "prompt_strength": 0.25, "model": "schnell",
        "num_outputs": 4, "num_inference_steps": 4, "guidance_scale": 3.5, "seed": 2**53 - 1,
        "output_format": "png", "output_quality": 0, "disable_safety_checker": True,
        "go_fast": False, "megapixels": "0.25", "lora": "a/b", "lora_scale": -1,
        "extra_lora": "hf:a/b", "extra_lora_scale": 3,
    }  # fmt: skip
    found: list[dict[str, Any]] = [{"prompt": "a fox"}, full, {}, {"prompt": None}, {"prompt": ""}]
    for field in FIELDS:
        base = {"prompt": "x"}
        found.append(base | {field.name: None})
        found += [base | {field.name: value} for value in WRONG[field.kind]]
        found += [base | {alias: full[field.name]} for alias in field.aliases]
        if field.kind in (Kind.STRING, Kind.URI):
            found += [base | {field.name: ""}, base | {field.name: "   "}]
        for limit in (field.minimum, field.maximum):
            if limit is not None:
                limit = min(limit, EXACT)
                found += [base | {field.name: limit}, base | {field.name: limit * 1.0}]
                if limit != EXACT:
                    found += [base | {field.name: limit - 1}, base | {field.name: limit + 1}]
        found += [base | {field.name: choice} for choice in field.choices]
    found += [
        {"prompt": "x", "lora": "a/b", "lora_weights": "c/d"},
        {"prompt": "x", "lora": None, "lora_weights": "c/d"},
        {"prompt": "x", "replicate_weights": "a/b", "lora_weights": "c/d"},
        {"prompt": "x", "Seed": 1},
        {"prompt": "x", "hf_api_token": "secret"},
        {"prompt": "x", "toString": 1},
        {"prompt": "x", "__proto__": 1},
    ]
    return found


def _parsed(raw: dict[str, Any]) -> dict[str, Any]:
    try:
        request = parse_request(raw)
    except RequestError as error:
        return {"text": json.dumps(raw), "refused": error.field}
    given = {name: value for name, value in vars(request).items() if value is not None}
    return {"text": json.dumps(raw), "request": given}


def _saved(texts: dict[str, Any], parameters: str = "") -> str:
    """Return a file as the Save node writes it, in base64."""
    packed = metadata.pack(texts, parameters=parameters)
    (saved,) = encode_batch(torch.rand(1, 64, 64, 3), "jpg", 90, packed)
    return base64.b64encode(saved.data).decode()


def _written_by_pillow(texts: dict[str, Any]) -> str:
    """Return a file with the same texts whose numbers have their low bytes first."""
    exif = Image.Exif()
    exif.endian = "<"
    for tag, (key, value) in zip((0x0110, 0x010F, 0x010E), texts.items(), strict=True):
        exif[tag] = f"{key}:{json.dumps(value)}"
    assert b"II*\0" in exif.tobytes()
    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", exif=exif)
    return base64.b64encode(buffer.getvalue()).decode()


def _size(size: Size) -> dict[str, int]:
    return {"width": size.width, "height": size.height, "tokens": size.tokens}


def _has_hint(model: str, steps: int) -> bool:
    request = parse_request({"prompt": "", "model": model, "num_inference_steps": steps})
    return any("schnell needs only" in warning for warning in make_plan(request, seed=0).warnings)
