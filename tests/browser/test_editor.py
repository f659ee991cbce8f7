"""The shipped workflows and our files in ComfyUI's graph editor, in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Editor

from workflows.recipes import RECIPES

FOLDER = Path(__file__).parent.parent.parent / "workflows"
SMALL = {"aspect_ratio": "custom", "width": 256, "height": 256, "num_inference_steps": 1}
SECONDS = 90


def shipped(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
def test_a_template_queues_what_the_api_prompt_says(editor: Editor, name: str) -> None:
    editor.load(shipped(f"{name}.json"))
    queued, expected = editor.prompt(), shipped(f"api/{name}.json")
    assert {key: node["class_type"] for key, node in queued.items()} == {
        key: node["class_type"] for key, node in expected.items()
    }
    for key, node in expected.items():
        assert queued[key]["inputs"] == node["inputs"], node["class_type"]


def draw(editor: Editor, output_format: str) -> tuple[str, bytes]:
    """Queue the open graph from the editor; the file it makes."""
    client = editor.comfy.client
    before = set(client.history())
    editor.set_widgets("FluxHotswapInputs", **SMALL, output_format=output_format, seed=12)
    editor.page.evaluate("() => window.app.queuePrompt(0)")
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for prompt_id in set(client.history()) - before:
            result = client.result(prompt_id)
            if result is not None and result.images():
                entry = result.images()[0]
                return entry["filename"], client.view(entry)
        editor.page.wait_for_timeout(200)
    raise TimeoutError(f"no picture after {SECONDS} s:\n{editor.comfy.server.log_tail()}")


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_a_dropped_file_brings_its_graph_back(editor: Editor, output_format: str) -> None:
    editor.load(shipped("flux_lora_schema.json"))
    name, data = draw(editor, output_format)
    expected = editor.node_types()
    editor.clear()
    assert editor.node_types() == []
    editor.drop(name, data)
    editor.page.wait_for_function("() => window.app.graph.nodes.length > 5", timeout=30_000)
    assert editor.node_types() == expected
    inputs = next(
        node["inputs"]
        for node in editor.prompt().values()
        if node["class_type"] == "FluxHotswapInputs"
    )
    assert {key: inputs[key] for key in SMALL} == SMALL
    assert inputs["output_format"] == output_format
    assert editor.errors == []


def test_a_dropped_jpg_does_not(editor: Editor) -> None:
    """The editor reads no JPEG; the documents say so. Should it learn to, they have to follow."""
    editor.load(shipped("text_to_image.json"))
    name, data = draw(editor, "jpg")
    editor.clear()
    editor.drop(name, data)
    editor.page.wait_for_timeout(2000)
    assert "FluxHotswapInputs" not in editor.node_types()
