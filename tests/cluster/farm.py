"""A cluster of two replicas with the small FLUX, and our API before it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
import requests
import yaml
from api.caller import Caller
from api.hosted import HostedApi
from runtime import ray
from runtime.comfyui import find_comfyui
from runtime.environment import ROOT, VENV, clean_env, venv_python
from runtime.models import small_models
from runtime.server import LAUNCHER, ComfyServer

HEAD = Path(__file__).with_name("head.py")
SERVE = ROOT / "deploy" / "serve.yaml"
REPLICAS = 2
START_SECONDS = 120.0


def small_server(folder: Path) -> ComfyServer:
    """A ComfyUI with the small FLUX, for somebody else to start."""
    return ComfyServer(find_comfyui(), models=small_models(), base=folder / "comfyui")


def cluster_env(server: ComfyServer) -> dict[str, str]:
    """The environment of everything: loopback alone, a token, one thread for each ComfyUI."""
    return {
        **clean_env(),
        **server.environment,
        "PYTHONPATH": os.pathsep.join([ray.ray_path(), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


class Head:
    """The cluster; use it as a context manager.

    Args:
        env: see `cluster_env`.
        log: where what it says goes.
    """

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self.env, self._log_path = env, log
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def __enter__(self) -> Head:
        self._log = self._log_path.open("ab")
        self._process = subprocess.Popen(
            [str(venv_python(VENV)), str(HEAD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, env=dict(self.env),
        )  # fmt: skip
        self.address = str(self._answer())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None and self._log is not None, "it was started"
        self._process.communicate("end {}\n")
        self._log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def processes(self) -> dict[str, list[int]]:
        return self.ask("processes", {})

    def ask(self, word: str, given: object) -> Any:
        assert self._process is not None and self._process.stdin is not None, "it was started"
        self._process.stdin.write(f"{word} {json.dumps(given)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None and self._process.stdout is not None, "it was started"
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the cluster has ended:\n{self._log_path.read_text()}")
        return json.loads(line)


def deploy(head: Head, settings: Mapping[str, Any], folder: Path) -> None:
    """Deploy the shipped file with other settings, and wait until Ray says that it runs."""
    config = yaml.safe_load(SERVE.read_text(encoding="utf-8"))
    (app,) = config["applications"]
    app["args"] |= settings
    app["runtime_env"]["env_vars"]["PYTHONPATH"] = head.env["PYTHONPATH"]
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    words = ["run", "--address", head.address, "--non-blocking", str(path)]
    code = "from ray.serve.scripts import cli; cli()"
    command = [str(venv_python(VENV)), "-c", code, *words]
    done = subprocess.run(command, env=dict(head.env), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    end = time.monotonic() + START_SECONDS
    while (status := head.ask("status", app["name"])) != "RUNNING":
        assert time.monotonic() < end and status != "DEPLOY_FAILED", status
        time.sleep(0.3)


class Farm:
    """What the tests speak to.

    Args:
        head: the cluster.
        api: before it.
        settings: of the replicas.
        server: what each of them starts.
    """

    def __init__(
        self, head: Head, api: HostedApi, settings: dict[str, Any], server: ComfyServer
    ) -> None:
        self.head, self.api, self.settings, self.server = head, api, settings, server
        self.caller = Caller(api)

    def deploy(self, **changes: Any) -> None:
        """Deploy it anew, with other settings."""
        self.settings |= changes
        deploy(self.head, self.settings, self.api.state.parent)

    def workers(self) -> dict[str, str]:
        """The replicas that take jobs, and how they are."""
        return requests.get(f"{self.api.url}/readyz", timeout=30).json()["workers"]

    def wait(self, many: int = REPLICAS) -> float:
        """Wait until so many replicas have told where they are; the seconds that took."""

        def there() -> bool:
            told = self.workers()
            return len(told) == many and all("process" in each for each in told.values())

        return self.until(there)

    def until(self, done: Callable[[], bool]) -> float:
        """Wait for something; the seconds that took."""
        begun = time.monotonic()
        while not done():
            if time.monotonic() - begun > START_SECONDS:
                raise AssertionError(f"{self.workers()}\n{self.api.log_text()[-4000:]}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def drawing(self) -> psutil.Process:
        """The process of the replica that draws; another may be just ending its job."""

        def drawing() -> list[str]:
            text = requests.get(f"{self.api.url}/metrics", timeout=30).text
            return re.findall(r'hotswap_worker_drawing\{worker="(\w+)"\} 1', text)

        self.until(lambda: len(drawing()) == 1)
        (name,) = drawing()
        pid = re.search(r"process (\d+)", self.workers()[name])
        assert pid is not None, self.workers()
        return psutil.Process(int(pid[1]))

    def kill(self, what: str) -> None:
        """Kill the replica that draws, its ComfyUI, or a process of Serve's."""
        replica = self.drawing()
        if what == "replica":
            replica.kill()
        elif what == "comfyui":
            (comfyui,) = replica.children()
            comfyui.kill()
        else:
            for pid in self.head.processes()[what]:
                psutil.Process(pid).kill()


@contextmanager
def farm(folder: Path, replicas: int = REPLICAS) -> Iterator[Farm]:
    """Start everything, and wait until it draws."""
    server = small_server(folder)
    env = cluster_env(server)
    words = server.prepared()
    arguments = shlex.split(words[-1].partition("=")[2])
    settings = {
        "comfyui": str(LAUNCHER), "python": str(find_comfyui().python),
        "arguments": arguments, "gpus": 0.0, "cpus": 1.0, "least": replicas, "most": replicas,
        "folder": str(folder / "replicas"),
    }  # fmt: skip
    with Head(env, folder / "ray.log") as head:
        deploy(head, settings, folder)
        ray_words = ("--workers", "ray", "--ray-address", head.address)
        api = HostedApi(folder, "", *ray_words, env=env)
        with api:
            made = Farm(head, api, settings, server)
            made.wait(replicas)
            yield made
