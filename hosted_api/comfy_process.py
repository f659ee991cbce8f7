"""A ComfyUI that the API starts, watches and ends. It ends with the API, however that ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import WorkerLostError

CHILD: Final = Path(__file__).with_name("child.py")
START_SECONDS: Final = 600.0
STOP_SECONDS: Final = 10.0
LOG: Final = "comfyui.log"
LOG_LIMIT: Final = 32 * 2**20
"""Bytes of ComfyUI's log after which it begins anew at the next start."""


class ComfyProcess:
    """One ComfyUI process.

    Args:
        place: its folder, or a script that is run instead of its main.py.
        python: what runs it; None for the Python that runs this.
        port: where it listens.
        folder: of its log, its output and its temporary files.
        arguments: further ones for the script, before ours.
        environment: more variables for it.
    """

    def __init__(
        self, place: Path, python: Path | None, port: int, folder: Path,
        arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._script = place if place.is_file() else place / "main.py"
        self._python = python or Path(sys.executable)
        self._port = port
        self._folder = folder
        self._arguments = tuple(arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log_path(self) -> Path:
        """Where its log goes."""
        return self._folder / LOG

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, answers: Callable[[], Awaitable[Any]]) -> None:
        """Start it, and return when it answers.

        Raises:
            WorkerLostError: it ends at once, or does not answer in time.
        """
        await self.stop()
        try:
            self._process = await self._spawn()
        except OSError as error:  # of the disk, or of a machine that has no room for a process
            raise WorkerLostError(f"ComfyUI cannot be started: {error}.") from error
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            await self.check()
            try:
                await answers()
            except WorkerLostError:
                await asyncio.sleep(0.2)
            else:
                return
        await self.stop()
        raise WorkerLostError(f"ComfyUI did not answer within {START_SECONDS:.0f} s.")

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._clean()
        with self.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.PIPE,  # its end tells the child that we are gone
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=sys.platform != "win32",  # Ctrl-C is for us
            )

    async def check(self) -> None:
        """See that it runs.

        Raises:
            WorkerLostError: it does not.
        """
        if self._process is None or self._process.returncode is not None:
            code = None if self._process is None else self._process.returncode
            raise WorkerLostError(f"ComfyUI has ended (exit {code}); see {self.log_path}.")

    async def stop(self) -> None:
        """End it, kindly first."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        try:
            process.terminate()
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        except ProcessLookupError:
            return

    def _clean(self) -> None:
        """Remove what an earlier one left: its pictures were fetched, or are drawn again."""
        for name in ("output", "temp"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            (self._folder / name).mkdir(parents=True, exist_ok=True)  # what is open may stay
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT:
            self.log_path.unlink()

    def _command(self) -> list[str]:
        return [
            *(str(self._python), "-u", str(CHILD), str(self._script), *self._arguments),
            *("--listen", "127.0.0.1", "--port", str(self._port), "--disable-auto-launch"),
            *("--output-directory", str(self._folder / "output")),
            *("--temp-directory", str(self._folder / "temp")),
        ]
