"""A web server that webhooks go to, and that tells what came: in tests, and to scripts over HTTP.

POST /NAME is a webhook's delivery. GET /NAME waits for its message with a prediction that has
ended, and answers with all that came, in order: [{"headers": {...}, "body": text}, ...].
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENDS = ("succeeded", "failed", "canceled")
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Delivery:
    """One request of a webhook: its headers, names in lower case, and its body as it came."""

    headers: dict[str, str]
    body: str

    @property
    def prediction(self) -> dict[str, Any]:
        return json.loads(self.body)


class Receiver:
    """A receiver on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self._deliveries: dict[str, list[Delivery]] = {}
        self._refusals: dict[str, list[int]] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def refuse(self, name: str, *statuses: int) -> None:
        """Answer the first deliveries of `name` with these statuses."""
        self._refusals[name] = list(statuses)

    def take(self, name: str, delivery: Delivery) -> int:
        """Note a delivery; the status to answer it with."""
        with self._came:
            self._deliveries.setdefault(name, []).append(delivery)
            refusals = self._refusals.get(name)
            self._came.notify_all()
            return refusals.pop(0) if refusals else 200

    def wait(self, name: str, *, ends: int = 1) -> list[Delivery]:
        """What came for `name`, once so many messages told of an end."""

        def ended() -> bool:
            came = self._deliveries.get(name, [])
            return sum(each.prediction["status"] in ENDS for each in came) >= ends

        with self._came:
            assert self._came.wait_for(ended, WAIT_SECONDS), f"no end came to {name}"
            return list(self._deliveries[name])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(self.server.receiver.take(self.path[1:], Delivery(headers, body)), b"")

    def do_GET(self) -> None:
        came = [asdict(each) for each in self.server.receiver.wait(self.path[1:])]
        self._answer(200, json.dumps(came).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002, given
        return
