"""Real HTTP servers on this machine, and the bytes they serve.

A route is a function that gets the request and answers it with `reply` or `send_file`. What a
server was asked is kept, so a test can say what must and must not have been sent.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import ssl
import struct
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]


class Request(BaseHTTPRequestHandler):
    """One request, with the ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        owner = self.server.owner
        with owner.lock:
            owner.seen.append(seen)
        route = owner.routes.get(urlsplit(self.path).path, owner.fallback)
        try:
            route(self)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815, likewise

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; ``x_name='v'`` becomes the header ``x-name: v``."""
        self.send_response(status)
        given = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        given.setdefault("content-length", str(len(body)))
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, document: Any, status: int = 200, **headers: str) -> None:
        headers.setdefault("content_type", "application/json")
        self.reply(status, json.dumps(document).encode(), **headers)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002, given
        return


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002, given
        return


def nothing(request: Request) -> None:
    request.reply(404, b"nothing here")


class Server:
    """A server on a free port of 127.0.0.1."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.lock = threading.Lock()
        self.reset()
        self._listener = Listener(("127.0.0.1", 0), Request)
        self._listener.owner = self
        if tls is not None:
            self._listener.socket = tls.wrap_socket(self._listener.socket, server_side=True)
        self.port: int = self._listener.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def reset(self) -> None:
        """Forget what it serves and what it was asked."""
        self.routes: dict[str, Callable[[Request], None]] = {}
        self.fallback: Callable[[Request], None] = nothing
        self.seen: list[Seen] = []

    def file(self, path: str, data: bytes, **faults: Any) -> str:
        """Serve these bytes at a path; see `File` for what can go wrong with it."""
        self.routes[path] = File(data, **faults)
        return self.url + path

    def asked(self, path: str = "") -> list[Seen]:
        """The requests whose path starts so."""
        with self.lock:
            return [seen for seen in self.seen if seen.path.startswith(path)]

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()


@dataclass
class File:
    """A route that serves bytes, and the faults it has.

    Attributes:
        etags: One for each request in turn; the last one stays.
        cut: After so many bytes of the body the connection breaks, for each request in turn.
        statuses: Answered in turn before the file is served at all.
        rate: Bytes per second of each connection.
        connections: More requests at a time than this are answered 503.
    """

    data: bytes
    etags: list[str] = field(default_factory=lambda: ['"one"'])
    ranges: bool = True
    if_range: bool = True
    cut: list[int] = field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    claim: int | None = None
    rate: float | None = None
    connections: int = 1000
    hold: threading.Event | None = None
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> None:
        with self.lock:
            self.open += 1
            busy = self.open > self.connections
        try:
            if busy:
                request.reply(503)
            else:
                self._serve(request)
        finally:
            with self.lock:
                self.open -= 1

    def _next(self, items: list[Any], *, keep: bool) -> Any:
        with self.lock:
            return items[0] if keep and len(items) == 1 else items.pop(0) if items else None

    def _serve(self, request: Request) -> None:
        refusal = self._next(self.statuses, keep=False)
        if refusal is not None:
            request.reply(refusal[0], b"", **refusal[1])
            return
        etag = self._next(self.etags, keep=True)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        if wanted and self.ranges and (condition in (None, etag) or not self.if_range):
            self._partial(request, etag, int(wanted[1]), wanted[2])
        else:
            self._body(request, 200, etag, self.data, {})

    def _partial(self, request: Request, etag: str | None, start: int, last: str) -> None:
        total = len(self.data)
        if start >= total:
            request.reply(416, b"", content_range=f"bytes */{total}")
            return
        end = min(int(last) + 1 if last else total, total)
        span = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        self._body(request, 206, etag, self.data[start:end], span)

    def _body(
        self, request: Request, status: int, etag: str | None, body: bytes, more: dict[str, str]
    ) -> None:
        request.send_response(status)
        headers = {"Accept-Ranges": "bytes" if self.ranges else "none", **more, **self.headers}
        if etag:
            headers["ETag"] = etag
        headers.setdefault("Content-Length", str(self.claim or len(body)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        cut = self._next(self.cut, keep=False)
        self._write(request, body if cut is None else body[:cut])
        if cut is not None or (self.claim or 0) > len(body):
            request.close_connection = True

    def _write(self, request: Request, body: bytes) -> None:
        if self.rate is None:
            request.wfile.write(body)
        else:
            step = max(1, int(self.rate / 50))
            for at in range(0, len(body), step):
                request.wfile.write(body[at : at + step])
                time.sleep(step / self.rate)
        if self.hold is not None:
            request.wfile.flush()
            self.hold.wait(20)


def lora(size: int = 4096, *, seed: int = 0, metadata: dict[str, str] | None = None) -> bytes:
    """A sound safetensors file with about so many bytes of data."""
    block = hashlib.sha256(str(seed).encode()).digest()
    data = (block * (size // len(block) + 1))[: size // 2 * 2]
    key = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"
    head: dict[str, Any] = {
        key: {"dtype": "F16", "shape": [len(data) // 2], "data_offsets": [0, len(data)]}
    }
    if metadata is not None:
        head["__metadata__"] = metadata
    return raw(head, data)


def raw(head: Any, data: bytes = b"") -> bytes:
    """A file with this head, whether it is sound or not."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def tar(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
