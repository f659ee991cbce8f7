"""Run a real ComfyUI with this pack as a child process. Standard library only.

    with ComfyServer(find_comfyui(), models=small_models()) as server:
        print(server.url)

Everything it reads and writes lies in one base directory, so a ComfyUI folder stays untouched.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from .comfyui import ComfyUI
from .environment import ROOT, RUNTIME, clean_env

LAUNCHER = Path(__file__).with_name("launch.py")
PLUGIN = Path(__file__).with_name("plugin")
PACK_NAME = "flux-hotswap"
PLUGIN_NAME = "flux-hotswap-test-plugin"
# ComfyUI's own choice on a CPU, sub-quadratic attention, saves memory that nobody here needs.
CPU_ARGUMENTS = ("--cpu", "--use-pytorch-cross-attention")
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
START_SECONDS = 240.0
STOP_SECONDS = 10.0

_NEW_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0

# Loopback must not go through a proxy, whatever the environment says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerError(RuntimeError):
    """ComfyUI did not start; the message ends with its log."""


class ComfyServer:
    """A ComfyUI process with the pack installed; use it as a context manager.

    Args:
        comfyui: what to run.
        models: a models folder (`diffusion_models/`, `vae/`...) whose files appear in ours.
        arguments: further arguments for main.py.
        cpu: whether to keep it off the GPU.
        port: 0 for any free one.
        base: the base directory; a temporary one, removed at the end, when not given.
        plugin: whether the plug-in for small models and for tests is loaded.
        pack: whether the pack is.
        env: more environment variables for the process.
        keep_secrets: whether the process may see model hub tokens of the environment.
    """

    def __init__(
        self,
        comfyui: ComfyUI,
        *,
        models: Path | None = None,
        arguments: Sequence[str] = (),
        cpu: bool = True,
        port: int = 0,
        base: Path | None = None,
        plugin: bool = True,
        pack: bool = True,
        env: Mapping[str, str] | None = None,
        keep_secrets: bool = False,
    ) -> None:
        self.comfyui = comfyui
        self.port = port
        self._models = models
        self._arguments = [*(CPU_ARGUMENTS if cpu else ()), *arguments]
        self._wanted_base = base
        self._links = {PACK_NAME: ROOT} if pack else {}
        if plugin:
            self._links[PLUGIN_NAME] = PLUGIN
        self._env = {**clean_env(keep_secrets=keep_secrets), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.base = Path()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def output_dir(self) -> Path:
        """Where its nodes save."""
        return self.base / "output"

    @property
    def input_dir(self) -> Path:
        """Where LoadImage looks."""
        return self.base / "input"

    @property
    def models_dir(self) -> Path:
        """Its models folder; adding and removing files here leaves the originals alone."""
        return self.base / "models"

    @property
    def log_path(self) -> Path:
        """The file that its log goes to."""
        return self.base / "comfyui.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def log_text(self) -> str:
        """What it has logged so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            ServerError: when the process ends, or does not answer in time.
        """
        self._make_base()
        self.port = self.port or free_port()
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,  # its end tells the launcher that we are gone
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self.base,
            # Ctrl-C in the terminal is for dev.py, which then ends ComfyUI in order.
            start_new_session=sys.platform != "win32",
            creationflags=_NEW_GROUP,
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def prepared(self) -> list[str]:
        """Make the base directory for somebody else who starts it: options of the API for that.

        The variables of its environment are for them to set too.
        """
        self._make_base()
        python, words = str(self.comfyui.python), shlex.join(self._words())
        return ["--start", str(LAUNCHER), "--python", python, f"--arguments={words}"]

    def stop(self) -> None:
        """End the process, and remove the base directory if it was a temporary one."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._wanted_base is None and self.base.is_absolute():
            _remove_tree(self.base)

    def wait(self) -> int:
        """Wait until the process ends by itself; its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait()

    # --- parts of starting ---

    def _make_base(self) -> None:
        if self._wanted_base is None:
            self.base = Path(tempfile.mkdtemp(prefix="flux-hotswap-")).resolve()
        else:
            self.base = self._wanted_base.resolve()
        for name in FOLDERS:
            (self.base / name).mkdir(parents=True, exist_ok=True)
        for name, target in self._links.items():
            link_folder(target, self.base / "custom_nodes" / name)
        if self._models is not None:
            link_files(self._models, self.base / "models")

    def _command(self) -> list[str]:
        where = ("--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch")
        return [str(self.comfyui.python), str(LAUNCHER), *self._words(), *where]

    def _words(self) -> list[str]:
        """What `LAUNCHER` is told besides the port."""
        return [
            str(self.comfyui.path),
            *("--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"),
            *("--disable-api-nodes", *self._arguments),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its process."""
        # -u and UTF-8: the log must be complete when a test reads it, on every system.
        ours = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
        if not self.comfyui.ours:
            ours["PYTHONPYCACHEPREFIX"] = str(RUNTIME / "pycache")
        return {**self._env, **ours}

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        assert self._process is not None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(
                    f"ComfyUI ended while starting (exit {self._process.returncode}).\n"
                    f"{self._shown_log()}"
                )
            if _answers(f"{self.url}/system_stats"):
                return
            time.sleep(0.1)  # between polls; there is nothing to wait on before it listens
        raise ServerError(
            f"ComfyUI did not answer at {self.url} in {START_SECONDS:.0f} s.\n{self._shown_log()}"
        )

    def _shown_log(self) -> str:
        return f"--- the end of its log ---\n{self.log_tail()}"


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=5) as response:
            return "system" in json.load(response)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def link_folder(target: Path, link: Path) -> None:
    """Make `link` show the folder `target`: a link, on Windows a junction, else a copy."""
    if link.is_symlink() or link.exists():
        return
    try:
        if sys.platform == "win32":
            import _winapi

            _winapi.CreateJunction(str(target), str(link))
        else:
            link.symlink_to(target, target_is_directory=True)
    except OSError:
        shutil.copytree(target, link, ignore=shutil.ignore_patterns(".*", "__pycache__"))


def link_files(source: Path, target: Path) -> None:
    """Make every file under `source` appear under `target`, in real folders."""
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _link_file(file, place)


def _link_file(file: Path, place: Path) -> None:
    for link in (os.symlink, os.link, shutil.copy2):
        try:
            link(file, place)
        except OSError:
            continue
        return
    raise ServerError(f"{file} could be neither linked nor copied to {place}.")


def _remove_tree(base: Path) -> None:
    """Remove a base directory without following its links to the pack."""
    for link in (base / "custom_nodes").iterdir():
        if link.is_symlink():
            link.unlink()
        elif _is_junction(link):
            link.rmdir()
    shutil.rmtree(base, ignore_errors=True)


def _is_junction(path: Path) -> bool:
    return sys.platform == "win32" and os.path.realpath(path) != os.path.abspath(path)  # noqa: PTH100 - must not resolve links
