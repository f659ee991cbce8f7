"""Pictures in a bucket of a real S3 server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image
from runtime.environment import ROOT, clean_env
from runtime.s3 import SECRET, S3Server, environment
from runtime.session import Comfy

from api.caller import SIZE
from api.hosted import HostedApi
from api.site import QUICK

CALLS = Path(__file__).with_name("folder_calls.py")
FOLDER = "s3://pictures/deep"
WRONG = "a-wrong-secret-8842"
MODEL = "black-forest-labs/flux-dev"
LARGE = 4 * 2**20
PASSES = 2**20
"""Bytes of it that come through before its sender is killed."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        (server.buckets / "pictures").mkdir()
        yield server


def process(env: Mapping[str, str]) -> subprocess.Popen[str]:
    """A process that makes calls of a folder."""
    path = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, CALLS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_env(), **env, "PYTHONPATH": path},
    )


def calls(env: Mapping[str, str], *words: tuple[str, ...]) -> list[Any]:
    """What each call raised."""
    return json.loads(process(env).communicate(json.dumps(words), timeout=60)[0])


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def picture(tmp_path: Path, size: int = 3000) -> Path:
    path = tmp_path / "picture.webp"
    path.write_bytes(b"RIFF\0\0\0\0WEBPVP8 " + os.urandom(size))
    return path


def test_put_and_removed(s3: S3Server, tmp_path: Path) -> None:
    path = picture(tmp_path)
    put = [(FOLDER, "put", str(path), "job", name) for name in ("1-0.webp", "1-0.webp", "1-1.webp")]
    # The second time nothing is there, as when a killed process had begun to remove.
    removed = [(FOLDER, "remove", "job", "1-0.webp")] * 2
    rest = [(FOLDER, "remove_folder", "job"), ("s3://nowhere/x", "remove", "job", "x")]
    no_bucket = ("s3://nowhere/x", "put", str(path), "job", "1-0.webp")
    *done, error = calls(s3.environment, *put, *removed, *rest, no_bucket)
    assert done == [None] * 7
    assert s3.objects() == {"pictures/deep/job/1-1.webp": path.read_bytes()}
    assert error == {
        "type": "StoreError",
        "text": "--outputs s3://nowhere/x cannot be written to: The specified bucket does not "
        "exist. Check the address, the permissions and the network.",
    }
    assert not (s3.buckets / "nowhere").exists(), "none is made by the way"


def test_a_wrong_secret_is_told_and_repeated_nowhere(s3: S3Server, tmp_path: Path) -> None:
    put = (FOLDER, "put", str(picture(tmp_path)), "job", "1-0.webp")
    remove = (FOLDER, "remove", "job", "1-0.webp")
    errors = calls(environment(s3.url, secret=WRONG), put, remove)
    for error, what in zip(errors, ("written to", "cleared"), strict=True):
        assert error["type"] == "StoreError"
        assert error["text"].startswith(f"--outputs {FOLDER} cannot be {what}: The request signat")
        assert WRONG not in error["text"]
    assert not any("1-0.webp" in name for name in s3.objects())


class Halting:
    """Passes one connection on to a server, but no more than the first bytes of it.

    Attributes:
        url: its own address.
        passed: what has gone to the server.
        halted: all that may pass has passed.
    """

    def __init__(self, url: str, limit: int) -> None:
        self._to = urlsplit(url)
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = b""
        self.halted = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection((self._to.hostname or "", self._to.port or 0))
        back = threading.Thread(target=_answers, args=(server, client), daemon=True)
        back.start()
        with self._listener, client, server:
            while data := client.recv(2**16):
                data = data[: self._limit - len(self.passed)]
                server.sendall(data)
                self.passed += data
                if len(self.passed) == self._limit:
                    self.halted.set()
            server.shutdown(socket.SHUT_RDWR)
            back.join()


def _answers(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client was killed
        while data := server.recv(2**16):
            client.sendall(data)


def test_killed_in_the_midst(s3: S3Server, tmp_path: Path) -> None:
    """Nobody ever sees a part of a picture."""
    name = "pictures/deep/killed/1-0.webp"
    (s3.buckets / name).parent.mkdir(parents=True)
    (s3.buckets / name).write_bytes(b"the one before")
    there = s3.objects()
    way = Halting(s3.url, PASSES)
    words = (FOLDER, "put", str(picture(tmp_path, LARGE)), "killed", "1-0.webp")
    with process(environment(way.url)) as putting:
        try:
            assert putting.stdin
            putting.stdin.write(json.dumps([words]))
            putting.stdin.close()
            assert way.halted.wait(20)
            assert requests.get(f"{s3.public}/{name}", timeout=20).content == b"the one before"
        finally:
            putting.kill()
    until(lambda: s3.objects() == there)
    assert b"\r\nContent-Type: image/webp\r\n" in way.passed, "browsers would not show it"


# --- through the API ---


def api(s3: S3Server, folder: Path, comfy: Comfy, outputs: str, *words: str) -> HostedApi:
    env = s3.environment
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    where = ("--outputs", outputs, "--outputs-public", f"{s3.public}/pictures/shared")
    return HostedApi(folder, comfy.server.url, *where, *words, env=env)


def drawn(running: HostedApi, **more: Any) -> dict[str, Any]:
    answer = requests.post(
        f"{running.url}/v1/models/{MODEL}/predictions",
        json={"input": {**QUICK, **more}},
        headers={"Prefer": "wait"},
        timeout=90,
    )
    return answer.json()


def test_two_apis_share_a_bucket(s3: S3Server, comfy: Comfy, tmp_path: Path) -> None:
    outputs = "s3://pictures/shared"
    before = set(s3.objects())
    first = api(s3, tmp_path / "first", comfy, outputs, "--keep", "1")
    with first, api(s3, tmp_path / "second", comfy, outputs) as second:
        ours, theirs = drawn(first), drawn(second, output_format="png")
        for told, kind in ((ours, "WEBP"), (theirs, "PNG")):
            assert told["status"] == "succeeded", told
            (url,) = told["output"]
            assert url == f"{s3.public}/pictures/shared/{told['id']}/1-0.{kind.lower()}"
            shown = Image.open(io.BytesIO(requests.get(url, timeout=20).content))
            assert (shown.format, shown.size) == (kind, SIZE)
        # What is too old goes at a start, and from time to time after it.
        first.kill()
        with first:
            until(lambda: not any(ours["id"] in name for name in s3.objects()))
        names = [f"{s3.public}/{name}" for name in s3.objects() if name not in before]
        assert names == theirs["output"], "the other's stay"
        assert first.holds(SECRET) == second.holds(SECRET) == []


def test_a_picture_that_cannot_be_put(s3: S3Server, comfy: Comfy, tmp_path: Path) -> None:
    with api(s3, tmp_path, comfy, "s3://nowhere/x") as running:
        told = drawn(running)
        assert (told["status"], told["output"]) == ("failed", None)
        assert "--outputs s3://nowhere/x cannot be written to" in told["error"]
        until(lambda: not list((running.state / "outputs").rglob("*.*")))
