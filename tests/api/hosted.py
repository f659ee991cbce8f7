"""Our API as a process of its own, before a ComfyUI that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from runtime.environment import ROOT, clean_env

SAYS = "listening on "
STOP_SECONDS = 10.0


class HostedApi:
    """A running `python path/to/hosted_api`; use it as a context manager.

    Args:
        folder: its state and its log go here.
        comfyui: address of the ComfyUI that draws; empty where the API starts one.
        arguments: further ones.
        env: further variables of its environment.

    Attributes:
        url: its address, without a slash at the end.
    """

    def __init__(
        self, folder: Path, comfyui: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.state = folder / "state"
        self.log_path = folder / "api.log"
        self.url = ""
        self._command = [
            *(sys.executable, str(ROOT / "hosted_api")),
            *(("--comfyui", comfyui) if comfyui else ()),
            *("--port", "0", "--state", str(self.state), *arguments),
        ]
        ours = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        self._env = {**clean_env(), **ours, **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> HostedApi:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=self._env,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.startswith(SAYS):
            self.__exit__()
            raise AssertionError(f"the API said {line!r} and ended:\n{self.log_text()}")
        self.url = line.removeprefix(SAYS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        if self._log is not None:
            self._log.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    def kill(self) -> None:
        """End it as a power cut would; it can be started again on the same state."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.communicate()
        self.__exit__()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait(STOP_SECONDS)

    def log_text(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def holds(self, text: str) -> list[str]:
        """The files of its state, and its log, that have `text` in them."""
        needle = text.encode()
        files = [Path(folder, name) for folder, _, names in os.walk(self.state) for name in names]
        return [str(path) for path in (*files, self.log_path) if needle in path.read_bytes()]
