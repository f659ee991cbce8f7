"""Serves one file over HTTP: `python bench/file_server.py FILE [--rate BYTES]`; prints its port.

The kernel sends the file (sendfile), so that the server is not what a benchmark measures. With a
rate, each connection gets no more than so many bytes a second, as file servers of the web do. With
`--tls CERTIFICATE` (a PEM file with its key) it speaks https, and encrypts what it has in memory.
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STEP = 2**20
ETAG = '"the-file"'


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as web servers do
    server: Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Send the file, or the range that is asked for."""
        size = self.server.size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range") in (None, ETAG):
            start = int(wanted[1])
            end = min(int(wanted[2]) + 1 if wanted[2] else size, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        else:
            start, end = 0, size
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", ETAG)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        try:
            self._send(start, end)
        except OSError:  # the other side has gone
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815, the name that the base class looks for

    def _send(self, start: int, end: int) -> None:
        if isinstance(self.connection, ssl.SSLSocket):
            for at in range(start, end, STEP):
                self.connection.sendall(self.server.content[at : min(at + STEP, end)])
            return
        rate = self.server.rate
        step = max(1, int(rate / 50)) if rate else end - start
        begun, at = time.monotonic(), start
        while at < end:
            at += os.sendfile(self.connection.fileno(), self.server.file, at, min(step, end - at))
            if rate:
                time.sleep(max(0.0, begun + (at - start) / rate - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, given
        """Keep quiet."""


class Listener(ThreadingHTTPServer):
    """The file and the rate of each connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, rate: float | None, certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.file = os.open(path, os.O_RDONLY)
        self.size = path.stat().st_size
        self.content = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)
        self.rate = rate
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, help="bytes a second of each connection")
    parser.add_argument("--tls", type=Path, metavar="CERTIFICATE")
    options = parser.parse_args()
    listener = Listener(options.file, options.rate, options.tls)
    print(listener.server_address[1], flush=True)
    listener.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
