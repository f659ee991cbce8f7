"""ComfyUI's graph editor in a page, as a hand and an eye would use it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page
from runtime.environment import ROOT
from runtime.session import Comfy

WORKFLOWS = ROOT / "workflows"
SHOTS = ROOT / "tests" / "browser" / "screenshots"
INPUTS = "FluxHotswapInputs"
DECIDED = {
    "FluxHotswapLoader": {"model", "go_fast"},
    "FluxHotswapLora": {"source", "scale", "go_fast_multiplier", "go_fast_lora"},
    "FluxHotswapPrompt": {"text", "model", "guidance"},
    "FluxHotswapLatent": {"aspect_ratio", "megapixels", "num_outputs"},
    "FluxHotswapSchedule": {
        *("model", "steps", "width", "height", "prompt_strength", "has_image"),
    },
    "FluxHotswapNoise": {"seed"},
    "FluxHotswapSafety": {"disable_safety_checker"},
    "FluxHotswapSave": {"output_format", "output_quality"},
}
"""Which widgets a request decides, as far as they are not hidden."""
CONTROL = "control_after_generate"
SMALL = {"aspect_ratio": "custom", "width": 256, "height": 256, "num_inference_steps": 1}
EMPTY = (800, 800)
"""A place of the page where no test puts a node."""
START_MS = 120_000
WAIT_MS = 20_000
DRAW_SECONDS = 90

_FINDERS = """
    window.everyNode = (graph = window.app.graph) =>
        graph.nodes.flatMap(node => node.subgraph ? [node, ...everyNode(node.subgraph)] : [node])
    window.nodeOf = type => everyNode().find(node => node.type === type)
"""
"""Nodes of the open workflow, those inside subgraphs too."""

# The newest editor asks for what 0.3.75 does not serve, and the registry about every pack.
_NOT_OURS = ("api.comfy.org", "Failed to load resource", "JobsApiError", "Jobs API", "assets")


Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the page."""


def shipped(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / name).read_text(encoding="utf-8"))


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    """A file of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return buffer.getvalue()


def shoot(page: Page, name: str) -> None:
    """Keep a picture of a page, where `FLUX_HOTSWAP_SHOTS` asks for that."""
    if os.environ.get("FLUX_HOTSWAP_SHOTS"):
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png")


@dataclass
class Editor:
    """The editor of one server in one page.

    Attributes:
        errors: what the console has said about our scripts and workflows.
    """

    page: Page
    comfy: Comfy
    errors: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, comfy: Comfy, **settings: Any) -> Editor:
        """Open the editor in a page of its own."""
        quiet = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
        quiet |= {"Comfy.Locale": "en", "Comfy.VueNodes.Enabled": False}
        quiet |= {"Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Workflow.Persist": False}
        comfy.client.post("/settings", quiet | settings)
        context = browser.new_context(
            viewport={"width": 1600, "height": 1000},
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.add_init_script(_FINDERS)
        editor = cls(context.new_page(), comfy)
        editor.page.on("console", editor._note)
        editor.page.on("pageerror", lambda error: editor.errors.append(str(error)))
        editor.page.goto(comfy.server.url)
        ready = "() => window.app && window.app.graph && window.app.canvasEl"
        editor.page.wait_for_function(ready, timeout=START_MS)
        editor.wait(
            "() => window.app.extensionManager && !document.querySelector('#splash-loader')"
        )
        return editor

    def close(self) -> None:
        self.page.context.close()

    def _note(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location}"
        if message.type == "error" and "hotswap" in text.lower():
            if not any(word in message.text for word in _NOT_OURS):
                self.errors.append(message.text)
        elif message.type == "warning" and "hotswap" in text.lower():
            self.errors.append(message.text)

    def wait(self, condition: str, argument: Any = None, ms: int = WAIT_MS) -> None:
        """Wait until a function in the page returns something true."""
        self.page.wait_for_function(condition, arg=argument, timeout=ms)

    # --- the graph ---

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow file."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)

    def clear(self) -> None:
        """Leave nothing on the canvas, and no subgraph, panel, dialog or message open."""
        self.page.evaluate(
            """() => {
                const {canvas, graph} = window.app
                const {sidebarTab, setting} = window.app.extensionManager
                const open = sidebarTab?.activeSidebarTabId
                if (open) sidebarTab.toggleSidebarTab(open)
                const panel = 'Comfy.RightSidePanel.IsOpen'
                if (setting.get(panel)) setting.set(panel, false)
                if (canvas.graph !== graph) canvas.setGraph(graph)
                graph.clear()
            }"""
        )
        if self.page.locator("[role=dialog]").count():
            self.page.keyboard.press("Escape")
        closing = "document.querySelectorAll('.p-toast-close-button')"
        self.page.evaluate(f"() => {closing}.forEach(button => button.click())")
        self.wait(f"() => {closing}.length === 0")  # they fade away

    def add(self, node_type: str, place: tuple[int, int] = (100, 150)) -> None:
        """Add a node."""
        self.page.evaluate(
            """([type, place]) => {
                const node = window.LiteGraph.createNode(type)
                node.pos = place
                window.app.graph.add(node)
            }""",
            [node_type, list(place)],
        )

    def node_types(self) -> list[str]:
        """What is in the workflow, without the nodes that stand for a subgraph."""
        return self.page.evaluate(
            "() => everyNode().filter(node => !node.subgraph).map(node => node.type).sort()"
        )

    def prompt(self) -> dict[str, Any]:
        """The graph as the editor would queue it."""
        return self.page.evaluate("() => window.app.graphToPrompt().then(made => made.output)")

    def inputs(self, node_type: str = INPUTS) -> dict[str, Any]:
        """What the editor would queue for the first node of a type."""
        return next(n["inputs"] for n in self.prompt().values() if n["class_type"] == node_type)

    def set_widgets(self, node_type: str, **values: Any) -> None:
        """Fill in widgets of the first node of a type, as its controls do."""
        self.page.evaluate(
            """([type, values]) => {
                const node = nodeOf(type)
                for (const widget of node.widgets) {
                    if (!(widget.name in values)) continue
                    widget.value = values[widget.name]
                    widget.callback?.(widget.value, window.app.canvas, node)
                }
            }""",
            [node_type, values],
        )

    def connect(self, source: int, output: str, target: int, entry: str) -> None:
        """Draw a wire from an output to an input, between nodes by their place in the graph."""
        self.page.evaluate(
            """([source, output, target, entry]) => {
                const {nodes} = window.app.graph
                const slotOf = (slots, name) => slots.findIndex(slot => slot.name === name)
                const from = slotOf(nodes[source].outputs, output)
                nodes[source].connect(from, nodes[target], slotOf(nodes[target].inputs, entry))
            }""",
            [source, output, target, entry],
        )

    def cut(self, node_type: str, entry: str) -> None:
        """Take the wire off an input of the first node of a type."""
        self.page.evaluate(
            """([type, entry]) => {
                const node = nodeOf(type)
                node.disconnectInput(node.inputs.findIndex(slot => slot.name === entry))
            }""",
            [node_type, entry],
        )

    def enter(self) -> None:
        """Open the subgraph on the canvas."""
        self.page.evaluate(
            """() => {
                const host = window.app.graph.nodes.find(node => node.subgraph)
                window.app.canvas.openSubgraph(host.subgraph, host)
            }"""
        )
        self.show(scale=0.45, left=230, top=200)

    def leave(self) -> None:
        """Show the whole workflow again."""
        self.page.evaluate("() => window.app.canvas.setGraph(window.app.graph)")
        self.show()

    def greyed(self, node_type: str) -> set[str]:
        """The widgets of the first node of a type that its look shows as unused."""
        return set(
            self.page.evaluate(
                """type => {
                    const node = nodeOf(type)
                    const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`)
                    const row = name => drawn.querySelector(`[data-slot-key="${node.id}-in-${
                        node.inputs.findIndex(slot => slot.widget?.name === name)}"]`)
                        ?.closest('.lg-node-widget')?.lastElementChild
                    const pale = name => getComputedStyle(row(name)).opacity < 1
                    return node.widgets
                        .filter(({name, hidden, computedDisabled}) => !hidden &&
                            (drawn ? row(name) && pale(name) : computedDisabled))
                        .map(({name}) => name)
                }""",
                node_type,
            )
        )

    def wait_for_greyed(self, wanted: dict[str, set[str]]) -> dict[str, set[str]]:
        """What each node greys, without a seed's control, once it is as wanted or stays."""
        deadline = time.monotonic() + 5
        while True:
            found = {node_type: self.greyed(node_type) - {CONTROL} for node_type in wanted}
            if found == wanted or time.monotonic() > deadline:
                return found
            self.page.wait_for_timeout(50)

    def shown_widgets(self, node_type: str) -> list[str]:
        """The widgets of the first node of a type that are not hidden."""
        return self.page.evaluate(
            """type => nodeOf(type).widgets
                .filter(widget => !widget.hidden).map(widget => widget.name)""",
            node_type,
        )

    def height(self, node_type: str) -> float:
        """How tall the first node of a type is."""
        return self.page.evaluate("type => nodeOf(type).size[1]", node_type)

    # --- what is seen ---

    def look(self) -> str:
        """The version of the editor and the way it draws nodes, for names of files."""
        return self.page.evaluate(
            """() => window.__COMFYUI_FRONTEND_VERSION__ +
                (document.querySelector('.lg-node') ? '_nodes2' : '')"""
        )

    def boxes(self) -> dict[str, Box]:
        """Where the page shows each node of the open graph, title included, by its title."""
        found = self.page.evaluate(
            """() => {
                const {graph, canvas, ds: {scale, offset}} = window.app.canvas
                const {left, top} = canvas.getBoundingClientRect()
                const onPage = ([x, y]) =>
                    [left + (x + offset[0]) * scale, top + (y + offset[1]) * scale]
                return graph.nodes.map(node => {
                    const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`)
                    const box = drawn?.getBoundingClientRect()
                    const [x, y] = node.pos
                    const corners = [[x, y - 30], [x + node.size[0], y + node.size[1]]]
                    return [node.title, box ? [box.left, box.top, box.right, box.bottom]
                        : corners.flatMap(onPage)]
                })
            }"""
        )
        return {title: tuple(box) for title, box in found}

    def show(self, scale: float = 0.9, left: int = 90, top: int = 120) -> None:
        """Bring the origin of the canvas to a place of the page."""
        self.page.evaluate(
            """([scale, left, top]) => {
                const {ds} = window.app.canvas
                ds.scale = scale
                ds.offset = [left / scale, top / scale]
                window.app.canvas.setDirty(true, true)
            }""",
            [scale, left, top],
        )

    def lines(self) -> list[str]:
        """The lines of all our nodes that the page shows."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.flux-hotswap-lines')]
                .filter(panel => panel.isConnected && panel.offsetParent !== null)
                .flatMap(panel => [...panel.children].map(row => row.textContent))"""
        )

    def wait_for_line(self, text: str, ms: int = WAIT_MS) -> None:
        """Wait until a line holds text."""
        deadline = time.monotonic() + ms / 1000
        while not any(text in line for line in self.lines()):
            assert time.monotonic() < deadline, f"no line with {text!r} in {self.lines()}"
            self.page.wait_for_timeout(50)

    def shoot(self, name: str) -> None:
        """Take a picture of the page for people to look at."""
        shoot(self.page, name)

    # --- doing ---

    def open_menu(self, node_type: str) -> None:
        """Click a node with the right button."""
        place = self.page.evaluate(
            """type => {
                const {canvas} = window.app
                const node = nodeOf(type)
                const box = canvas.canvas.getBoundingClientRect()
                const {scale, offset} = canvas.ds
                const x = (node.pos[0] + 120 + offset[0]) * scale
                return [box.left + x, box.top + (node.pos[1] - 14 + offset[1]) * scale]
            }""",
            node_type,
        )
        self.page.mouse.click(*place, button="right")

    def choose(self, node_type: str, entry: str) -> None:
        """Choose an entry of a node's menu."""
        self.open_menu(node_type)
        self.page.get_by_text(entry, exact=True).first.click(timeout=WAIT_MS)

    def command(self, name: str) -> None:
        """Carry out a command of the editor."""
        self.page.evaluate("name => window.app.extensionManager.command.execute(name)", name)

    def queue(self) -> None:
        """Queue the open graph."""
        self.page.evaluate("() => window.app.queuePrompt(0)")

    def draw(self) -> tuple[str, bytes]:
        """Queue the open graph; the first file that it makes."""
        client = self.comfy.client
        before = set(client.history())
        self.queue()
        deadline = time.monotonic() + DRAW_SECONDS
        while time.monotonic() < deadline:
            for prompt_id in set(client.history()) - before:
                result = client.result(prompt_id)
                if result is not None and result.images():
                    entry = result.images()[0]
                    return entry["filename"], client.view(entry)
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"no picture after {DRAW_SECONDS} s:\n{self.comfy.server.log_tail()}")

    def drop(self, file: Path, place: tuple[float, float] = EMPTY) -> None:
        """Drop a file at a place of the page, as a hand does; it has to stay until it is read."""
        # While the editor opens one file, a mask keeps the next from it.
        self.wait("() => !document.querySelector('.p-blockui-mask')")
        browser = self.page.context.new_cdp_session(self.page)
        data: dict[str, Any] = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            event = {"type": step, "x": place[0], "y": place[1], "data": data}
            browser.send("Input.dispatchDragEvent", event)
        browser.detach()
