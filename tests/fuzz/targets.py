"""What is fuzzed: each target takes any bytes and raises only if something is wrong.

The pack's own errors are right answers. bench/fuzz.py runs the targets under atheris, the tests of
this folder with kept inputs and random changes of them.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from lora_fetch import BadFileError, SourceError, parse
from lora_fetch.header import looks_like, read
from ops.picture import PictureError, decode_mask, decode_picture, grid_mask, resize_picture
from prediction.data_uri import is_data_uri, read_data_uri
from prediction.errors import ImageError, RequestError
from prediction.image_header import upright_size
from prediction.plan import make_plan
from prediction.request import parse_request
from prediction.spec import FIELDS

LARGEST = 2**18
"""Pixels of the pictures that are decoded: larger ones only take longer."""

_NAMES = [name for field in FIELDS for name in (field.name, *field.aliases)]
_FOLDER = tempfile.TemporaryDirectory(prefix="flux-hotswap-fuzz-")


def request(data: bytes) -> None:
    """A request as JSON, or put together from the bytes; a valid one can be planned."""
    raw = _json_object(data)
    try:
        parsed = parse_request(_put_together(data) if raw is None else raw)
        image = (1 + data[0] * 9, 1 + data[-1] * 9) if data and parsed.image else None
        plan = make_plan(parsed, seed=0, image=image, mask=parsed.mask is not None)
    except RequestError as error:
        assert str(error).isprintable(), error
        return
    assert plan.width % 16 == plan.height % 16 == 0
    assert len(plan.sigmas) == plan.steps + 1
    assert plan.sigmas[-1] == 0


def source(data: bytes) -> None:
    """A LoRA source; what it means can be written down and read again."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = parse(text)
    except SourceError as error:
        assert len(str(error)) < 1000, error
        return
    assert parse(parsed.canonical()) == parsed
    assert parsed.shown()


def header(data: bytes) -> None:
    """A safetensors file: all of it, or its head alone if the first byte is odd."""
    if data and data[0] % 2:
        data = (len(data) - 1).to_bytes(8, "little") + data[1:]
    looks_like(data)
    path = Path(_FOLDER.name, "a.safetensors")
    path.write_bytes(data)
    try:
        found = read(path)
    except BadFileError as error:
        assert len(str(error)) < 1000, error
        return
    assert found.tensors
    assert max(tensor.end for tensor in found.tensors.values()) < len(data)


def picture(data: bytes) -> None:
    """An input picture and a mask."""
    if _pixels(data) > LARGEST:
        return
    try:
        image = decode_picture(data, "image")
        assert image.ndim == 4
        assert 0 <= image.min() <= image.max() <= 1
        mask = decode_mask(data, "mask")
        assert mask.shape == image.shape[:3]
        assert resize_picture(image, 16, 32).shape == (1, 32, 16, 3)
        assert grid_mask(mask, 16, 32).shape == (1, 4, 2)
    except PictureError as error:
        assert str(error).startswith(("image: ", "mask: ")), error


def image_header(data: bytes) -> None:
    """The first bytes of a picture."""
    try:
        width, height = upright_size(data)
    except ImageError:
        return
    assert width > 0
    assert height > 0


def data_uri(data: bytes) -> None:
    """A data: URI."""
    text = data.decode("utf-8", "surrogateescape")
    is_data_uri(text)
    try:
        read_data_uri(text)
    except ValueError as error:
        assert type(error) is ValueError, repr(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "source": source,
    "header": header,
    "picture": picture,
    "image_header": image_header,
    "data_uri": data_uri,
}


def seeds(name: str) -> list[bytes]:
    """Sound inputs of a target to start from."""
    makers: dict[str, Callable[[], Iterator[bytes]]] = {
        "request": _requests,
        "source": _sources,
        "header": _headers,
        "picture": _pictures,
        "image_header": _pictures,
        "data_uri": _data_uris,
    }
    return list(makers[name]())


# --- parts of targets ---


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        raw: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def _put_together(data: bytes) -> dict[str, Any]:
    """Fields and values, two bytes each."""
    values: list[Any] = [
        *(None, True, False, 0, -1, 1, 2.5, 1e308, float("nan"), float("inf"), 2**64, -(2**70)),
        *("", " ", "a", "dev", "schnell", "1:1", "custom", "webp", "0.25", "\ud800", "\n", [], {}),
        *(256, 512, 1440, 1441, 28, 50, 0.0, 1e-320, "x.png", "data:,a", "https://a/b.safetensors"),
    ]
    return {
        _NAMES[a % len(_NAMES)]: values[b % len(values)]
        for a, b in zip(data[::2], data[1::2], strict=False)
    } | ({"prompt": "a"} if len(data) % 2 else {})


def _pixels(data: bytes) -> int:
    """How large a picture says that it is; 0 if that cannot be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as opened:
                return opened.width * opened.height
        except Exception:  # noqa: BLE001 - the target meets it again
            return 0


# --- seeds ---


def _requests() -> Iterator[bytes]:
    yield b'{"prompt": "a cat"}'
    yield json.dumps({field.name: field.default for field in FIELDS} | {"prompt": "a"}).encode()
    yield b'{"prompt":"a","aspect_ratio":"custom","width":256,"height":1440,"seed":1e3}'
    yield bytes(range(60))


def _sources() -> Iterator[bytes]:
    digest = "0123456789abcdef" * 4
    for text in (
        *("owner/name", f"owner/name:{digest}", "https://replicate.com/a/b/versions/" + digest),
        *("hf:a/b", "https://huggingface.co/a/b/resolve/main/c/d.safetensors?download=true"),
        *("civitai:1@2", "https://civitai.com/models/1/x?modelVersionId=2"),
        *("urn:air:flux1:lora:civitai:1@2", "air:flux1:lora:huggingface:a/b/c.safetensors"),
        *(f"https://a.example:8443/x%20y.safetensors?k=v#sha256={digest}", "sub\\x.safetensors"),
        *(
            '"https://www.dropbox.com/s/a/b.safetensors?dl=0",',
            "[x](https://github.com/a/b/blob/c.tar)",
        ),
        *("<https://drive.google.com/file/d/1A/view>", "hf:a/b/./tree/c.safetensors"),
        "https://a.example/1?b=attachment%3B%20filename%3D%22c.safetensors%22%3B",
        *("https://huggingface.co/a/b/discussions/3", f"replicate.com/a/b/versions/{digest}/api"),
        *("https://[2001:db8::1]/a.tar", "data:;base64,AAAA", "localhost:80/a.safetensors"),
    ):
        yield text.encode()


def _headers() -> Iterator[bytes]:
    tensor = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    head = json.dumps({"__metadata__": {"format": "pt"}, "a.weight": tensor}).encode()
    yield len(head).to_bytes(8, "little") + head + bytes(12)
    yield b"\x01" + head
    yield b"\x01" + b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'


def _pictures() -> Iterator[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "L", "P", "I;16", "1", "CMYK", "F", "LA"):
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
            buffer = io.BytesIO()
            image = Image.new(mode, (5, 3))
            try:
                image.save(buffer, kind, **({"exif": exif} if kind in ("PNG", "WEBP") else {}))
            except (OSError, ValueError):  # not every kind holds every mode
                continue
            yield buffer.getvalue()
            yield buffer.getvalue()[:-9]
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n8\n49492a0008000000", zip=True)
    info.add_itxt("XML:com.adobe.xmp", '<a tiff:Orientation="6"/>', zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3)).save(buffer, "PNG", pnginfo=info)
    yield buffer.getvalue()


def _data_uris() -> Iterator[bytes]:
    yield b"data:image/png;base64," + base64.b64encode(bytes(range(50)))
    yield b"data:,a%20b"
    yield b"DATA:;Base64,%41AAA"
    yield b"data:;base64,_-8%0A A\n=="
