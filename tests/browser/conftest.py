"""A real browser, and the graph editor in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from runtime.browser import ARGUMENTS, find_browser
from runtime.session import Comfy

START_MS = 120_000
QUIET = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}


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


@dataclass
class Editor:
    """ComfyUI's graph editor in a page.

    Attributes:
        errors: what the pack's own scripts and workflows made the console say.
    """

    page: Page
    comfy: Comfy
    errors: list[str]

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow file."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)

    def prompt(self) -> dict[str, Any]:
        """The graph as the editor would queue it."""
        return self.page.evaluate("() => window.app.graphToPrompt().then(made => made.output)")

    def set_widgets(self, node_type: str, **values: Any) -> None:
        """Fill in widgets of the first node of a type."""
        self.page.evaluate(
            """([type, values]) => {
                const node = window.app.graph.nodes.find(node => node.type === type)
                for (const widget of node.widgets)
                    if (widget.name in values) widget.value = values[widget.name]
            }""",
            [node_type, values],
        )

    def clear(self) -> None:
        """Leave nothing on the canvas."""
        self.page.evaluate("() => window.app.graph.clear()")

    def node_types(self) -> list[str]:
        """What is on the canvas."""
        return self.page.evaluate("() => window.app.graph.nodes.map(node => node.type).sort()")

    def drop(self, name: str, data: bytes) -> None:
        """Drop a file on the canvas, as a hand would."""
        self.page.evaluate(
            """([name, bytes]) => {
                const kinds = {png: 'image/png', webp: 'image/webp', jpg: 'image/jpeg'}
                const type = kinds[name.split('.').pop()]
                const file = new File([new Uint8Array(bytes)], name, {type})
                const dataTransfer = new DataTransfer()
                dataTransfer.items.add(file)
                const options = {bubbles: true, cancelable: true, dataTransfer}
                window.app.canvasEl.dispatchEvent(new DragEvent('drop', options))
            }""",
            [name, list(data)],
        )


@pytest.fixture
def editor(browser: Browser, comfy: Comfy) -> Iterator[Editor]:
    """The editor, freshly opened."""
    comfy.client.post("/settings", QUIET)
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        ours = "hotswap" in f"{message.text} {message.location}".lower()
        # The editor asks the registry about every pack of a workflow; this server forbids it.
        if message.type == "error" and ours and "api.comfy.org" not in message.text:
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(comfy.server.url)
    ready = "() => window.app && window.app.graph && window.app.canvasEl"
    page.wait_for_function(ready, timeout=START_MS)
    yield Editor(page, comfy, errors)
    page.close()
