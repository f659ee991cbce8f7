"""What is fuzzed: each target takes any bytes and raises only if something is wrong.

The pack's own errors are right answers. bench/fuzz.py runs the targets under atheris, the tests of
this folder with kept inputs and random changes of them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from flux_hotswap.errors import BadFileError, FetchError, ImageError, RequestError, SourceError
from flux_hotswap.files.header import looks_like, read
from flux_hotswap.files.note import read_note
from flux_hotswap.files.tar import find_member, unpack
from flux_hotswap.lora_fetch.index import Index
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.ops.picture import decode_mask, decode_picture, grid_mask, resize_picture
from flux_hotswap.ops.picture_file import upright_size
from flux_hotswap.ops.redact import clean_text
from flux_hotswap.prediction.data_uri import is_data_uri, read_data_uri
from flux_hotswap.prediction.plan import make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.spec import FIELDS

LARGEST = 2**18
"""Pixels of the pictures that are decoded: larger ones only take longer."""

MARK = "s3cr3tS3CR3T"
"""What must not stay of an address."""

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
    except ImageError as error:
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
    except ImageError as error:
        assert len(str(error)) < 1000, error


def note(data: bytes) -> None:
    """A note beside a part; a sound one can be written down, and its values used."""
    found = read_note(data)
    if found is None:
        return
    assert read_note(json.dumps(vars(found)).encode()) == found
    assert found.validator is None or found.validator.isprintable()
    assert all(count is None or count >= 0 for count in (found.total, found.have))


def tar(data: bytes) -> None:
    """A tar on the disk; what is taken out of it lay where the look through it said."""
    path = Path(_FOLDER.name, "a.tar")
    path.write_bytes(data)
    try:
        with path.open("rb") as file:
            member = find_member(file, label="a/b", max_bytes=LARGEST)
    except FetchError as error:
        assert len(str(error)) < 1000, error
        return
    size, digest = unpack(path, label="a/b", max_bytes=LARGEST)
    wanted = data[member.start : member.start + member.size]
    assert (size, digest) == (member.size, hashlib.sha256(wanted).hexdigest())
    assert path.read_bytes() == wanted


def index(data: bytes) -> None:
    """An index; what is read of it leads nowhere else and can be shown."""
    path = Path(_FOLDER.name, "index.json")
    path.write_bytes(data)
    for entry in (
        Index(path, lock=path.with_suffix(".lock"), by=path.with_suffix(".new"))
        .read()
        .loras.values()
    ):
        assert (path.parent / entry.file).parent == path.parent
        assert entry.size >= 0
        assert all(text.isprintable() for text in (entry.source, *entry.trigger_words))


def saved_text(data: bytes) -> None:
    """A text of a graph; the secret behind an address does not stay, and nothing is done twice."""
    text = data.decode("utf-8", "surrogateescape")
    clean_text(text, "/home/anna")
    word = "".join(text.split())
    cleaned = clean_text(f"https://a.example/x?{word}{MARK}", "")
    assert MARK not in cleaned, cleaned
    assert clean_text(cleaned, "") == cleaned
    assert MARK not in clean_text(f"data:;base64,{word}{MARK}", "")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "source": source,
    "header": header,
    "picture": picture,
    "image_header": image_header,
    "data_uri": data_uri,
    "note": note,
    "tar": tar,
    "index": index,
    "saved_text": saved_text,
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
        "note": _notes,
        "tar": _tars,
        "index": _indexes,
        "saved_text": _saved_texts,
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


def _notes() -> Iterator[bytes]:
    yield b'{"validator": "\\"one\\"", "revision": null, "total": 5000, "have": 400}'
    yield b'{"sha256": "ab", "member": ["a/b.safetensors", 512, 900]}'


def _tars() -> Iterator[bytes]:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
            for name in ("a.txt", "long/" * 15 + "ü" * 50 + ".safetensors"):
                info = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[-40:])
                info.size = 600
                file.addfile(info, io.BytesIO(bytes(600)))
        yield buffer.getvalue()


def _indexes() -> Iterator[bytes]:
    entry = {"source": "a/b", "file": "a-0123.safetensors", "size": 5, "sha256": "ab"}
    entry |= {"mtime_ns": 1, "trigger_words": ["TOK"], "pinned": True, "used": 1.5}
    local = {"/a.safetensors": {"size": 1, "mtime_ns": 2, "sha256": "ab"}}
    yield json.dumps({"version": 1, "loras": {"ab": entry}, "local": local}).encode()


def _saved_texts() -> Iterator[bytes]:
    yield b"see https://anna:pw@a.example/x?token=abc#sha256=0 and a.example/x?y=z, too"
    yield b'{"lora": "hf:a/b?c=d", "image": "data:image/png;base64,AAAA"}'
    yield b"civitai:1@2?fileId=3&x=%3Fy%3Dz;a=b"
