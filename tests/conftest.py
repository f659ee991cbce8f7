"""Shared fixtures: a clean environment for every test, and one ComfyUI for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from fetch.servers import Server
from runtime import rescue
from runtime.client import Client
from runtime.comfyui import find_comfyui
from runtime.environment import SECRETS
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

rescue.install()

_COMFY = pytest.StashKey[Comfy]()
# Whatever a developer's shell says, tests see no secrets, no proxies and no model hub.
_UNSET = (*SECRETS, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def comfy(pytestconfig: pytest.Config) -> Iterator[Comfy]:
    """A real ComfyUI with the pack, the small models and the test nodes; never skipped.

    Raises:
        SetupError: the runtime is not set up; the message says how to do that.
    """
    models = small_models()
    files = Server()
    # Nothing that a test asks for may come from the network: the hub is this server too.
    env = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": files.url}
    env["FLUX_HOTSWAP_ALLOW_HOSTS"] = f"127.0.0.1:{files.port}"
    env["FLUX_HOTSWAP_API"] = "1"  # see tests/api/test_inside.py
    with closing(files), ComfyServer(find_comfyui(), models=models, env=env) as server:
        running = Comfy(server, Client(server.url), models, files)
        pytestconfig.stash[_COMFY] = running
        yield running
        left = running.undeclared_tracebacks()
        assert not left, "our pack raised in the server, and no test declared it:\n" + left[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    running = item.config.stash.get(_COMFY, None)
    if report.failed and running is not None and "comfy" in getattr(item, "fixturenames", ()):
        report.sections.append(("the end of ComfyUI's log", running.server.log_tail()))
    return report
