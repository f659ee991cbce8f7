"""What people paste and what strangers send, for the requests of bench/soak.py."""

from __future__ import annotations

import base64
import gzip
import io
import random
import zlib
from collections.abc import Callable
from typing import Any

from fetch.servers import Request, Server, tar
from PIL import Image, PngImagePlugin

__all__ = ["Strange"]

Fields = dict[str, Any]
Wrong = tuple[str, Fields]
"""The field that an error names, and the values of a request."""


class Strange:
    """Draws odd but right values, and wrong ones.

    Args:
        draw: decides.
        web: serves what they name.
        lora: a sound LoRA file.
    """

    def __init__(self, draw: random.Random, web: Server, lora: bytes) -> None:
        self.random = draw
        self.web = web
        self._serve(lora)

    def _serve(self, lora: bytes) -> None:
        web = self.web
        web.file("/people.safetensors", lora)
        web.file("/people.tar", tar(("flux-lora/lora.safetensors", lora)))
        web.file("/packed.safetensors", gzip.compress(lora), headers={"Content-Encoding": "gzip"})
        web.file("/wide-head.safetensors", (50_000_000).to_bytes(8, "little") + b"{" * 5000)
        web.file("/page.tar", tar(("a.safetensors", b"<html>" * 200)))
        web.file("/post.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
        web.file("/huge.png", _huge())
        web.routes["/moved.safetensors"] = _moved
        web.routes["/chunked.safetensors"] = _chunked(lora)

    # --- right ---

    def valid(self) -> Fields:
        """Draw values as people have them."""
        return self.random.choice((self._link, self._link, self._data_uri, self._file))()

    def _link(self) -> Fields:
        link = f"{self.web.url}/people.safetensors"
        wrapped = (f'"{link}"', f"<{link}>", f" {link} ", f"'{link}'", f"{link}/", f"({link})")
        others = [f"{self.web.url}/{name}" for name in ("moved.safetensors", "chunked.safetensors")]
        return {"lora": self.random.choice([*wrapped, *others, f"{self.web.url}/people.tar"])}

    def _data_uri(self) -> Fields:
        text = base64.b64encode(_jpeg()).decode()
        lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
        odd = (lines, text.rstrip("="), text.replace("+", "-").replace("/", "_"), f" {text}")
        return {"image": f"data:image/jpeg;base64,{self.random.choice(odd)}"}

    def _file(self) -> Fields:
        data = self.random.choice((_jpeg()[:-40], _wordy()))
        return {"image": self.web.file("/people-picture", data)}

    # --- wrong ---

    def wrong(self) -> Wrong:
        """Draw values that must be refused."""
        web = self.web.url
        field = self.random.choice(("lora", "extra_lora"))
        cases: tuple[Wrong, ...] = (
            ("disable_safety_checker", {"disable_safety_checker": "false"}),
            ("go_fast", {"go_fast": "no"}),
            ("num_outputs", {"num_outputs": 2.7}),
            ("lora_wieghts", {"lora_wieghts": "owner/name"}),
            ("prompt", {"prompt": "half \ud800 a sign"}),
            (field, {field: f"{web}/packed.safetensors"}),
            (field, {field: f"{web}/wide-head.safetensors"}),
            (field, {field: f"{web}/page.tar"}),
            (field, {field: f"{web}/nothing.safetensors?access_key=secret"}),
            ("image", {"image": f"{web}/post.eps"}),
            ("image", {"image": f"{web}/huge.png"}),
            ("image", {"image": "data:image/png," + "%41" * 100_000}),
        )
        return self.random.choice(cases)


def _moved(request: Request) -> None:
    status = (301, 302, 307, 308)[len(request.server.owner.seen) % 4]
    request.reply(status, location="/people.safetensors")


def _chunked(body: bytes) -> Callable[[Request], None]:
    def route(request: Request) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        if request.command != "HEAD":
            for at in range(0, len(body), 4096):
                piece = body[at : at + 4096]
                request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            request.wfile.write(b"0\r\n\r\n")

    return route


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def _wordy() -> bytes:
    """A PNG with more text than Pillow reads by itself."""
    buffer, words = io.BytesIO(), PngImagePlugin.PngInfo()
    words.add_text("workflow", "x" * 2_000_000, zip=True)
    Image.linear_gradient("L").resize((64, 48)).save(buffer, "PNG", pnginfo=words)
    return buffer.getvalue()


def _huge() -> bytes:
    """The head of a PNG of 60000x60000, and little more."""
    head = (60000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(999))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )
