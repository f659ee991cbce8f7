"""A real browser, and the graph editor in it: each version, each way it draws nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from browser.editor import Editor
from fetch.servers import Server
from playwright.sync_api import Browser, sync_playwright
from runtime.browser import ARGUMENTS, find_browser
from runtime.client import Client
from runtime.comfyui import find_comfyui
from runtime.frontend import find_newest
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

LOOKS = {
    "own": False,
    "newest": False,
    "newest, Nodes 2.0": True,
    "own, Nodes 2.0": True,
}
"""Which editor (that of the ComfyUI, 1.32.9 in ours), and whether it draws nodes with Vue."""
MOST_LOOKS = [look for look in LOOKS if look != "own, Nodes 2.0"]
"""Nodes 2.0 was an experiment in 1.32.9: only what is opened first is tested with it."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser; without one the editor cannot be tested."""
    path = find_browser()
    if path is None:
        pytest.skip("waits for a Chromium on this machine: install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def newest() -> Iterator[Comfy]:
    """The same ComfyUI as `comfy`, with the newest editor."""
    models, files = small_models(), Server()
    env = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": files.url}
    env["FLUX_HOTSWAP_ALLOW_HOSTS"] = f"127.0.0.1:{files.port}"
    arguments = ("--front-end-root", str(find_newest()))
    with (
        closing(files),
        ComfyServer(find_comfyui(), models=models, env=env, arguments=arguments) as server,
    ):
        running = Comfy(server, Client(server.url), models, files)
        yield running
        assert running.undeclared_tracebacks() == []


@pytest.fixture(scope="session", params=MOST_LOOKS)
def look(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Editor]:
    """One page for each look; `editor` is the same, emptied for a test.

    pytest runs all tests of one look after each other, whichever file they are in.
    """
    comfy: Comfy = request.getfixturevalue("comfy" if request.param.startswith("own") else "newest")
    opened = Editor.open(browser, comfy, **{"Comfy.VueNodes.Enabled": LOOKS[request.param]})
    yield opened
    opened.close()


@pytest.fixture
def editor(look: Editor) -> Iterator[Editor]:
    """The editor with nothing on the canvas; nothing of ours may end up in the console."""
    look.clear()
    look.errors.clear()
    yield look
    assert look.errors == []
