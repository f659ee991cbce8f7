"""The shipped workflows and our lines in ComfyUI's graph editor, in a real browser."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from browser.editor import CONTROL, DECIDED, INPUTS, SMALL, Editor, picture, shipped
from fetch.servers import lora
from mini_flux import loras

from flux_hotswap.prediction.spec import FIELDS, Field, Kind

LATENT, LORA = "FluxHotswapLatent", "FluxHotswapLora"


def test_lines_follow_the_form(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.show()
    editor.wait_for_line("1024 × 1024 · 1.05 MP · 4096 tokens")
    assert editor.lines()[1:] == ["go_fast"]
    assert {"width", "height"}.isdisjoint(editor.shown_widgets(INPUTS))
    low = editor.height(INPUTS)
    editor.set_widgets(INPUTS, aspect_ratio="custom", width=1008, height=512, model="schnell")
    editor.wait_for_line("1008 × 512 · 0.52 MP · 2016 tokens")
    assert editor.lines()[1:] == ["bf16: custom size", "schnell needs only 4 steps, 28 will run"]
    assert {"width", "height"} <= set(editor.shown_widgets(INPUTS))
    assert editor.height(INPUTS) > low
    editor.set_widgets(INPUTS, aspect_ratio="9:21", megapixels="0.25", num_inference_steps=4)
    editor.wait_for_line("320 × 768 · 0.25 MP · 960 tokens")
    editor.set_widgets(INPUTS, aspect_ratio="1:1", go_fast=False)
    editor.wait_for_line("bf16: go_fast off")
    assert editor.height(INPUTS) == low


def test_a_saved_graph_comes_back_with_the_same_sizes(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.set_widgets(INPUTS, aspect_ratio="custom", width=512, height=1024)
    editor.wait_for_line("512 × 1024")
    height = editor.height(INPUTS)
    graph = editor.page.evaluate("() => window.app.graph.serialize()")
    assert len(graph["nodes"][0]["widgets_values"]) == 24, "the lines are no value"
    for _ in range(2):
        editor.load(graph)
        editor.wait_for_line("512 × 1024")
        again = editor.page.evaluate("() => window.app.graph.serialize()")
        assert again["nodes"][0]["size"] == graph["nodes"][0]["size"]
    assert editor.height(INPUTS) == height
    assert {"width", "height"} <= set(editor.shown_widgets(INPUTS))


def test_a_picture_sets_the_size(editor: Editor) -> None:
    editor.comfy.client.upload("wide.png", picture(500, 300))
    editor.load(shipped("image_to_image.json"))
    editor.set_widgets("LoadImage", image="wide.png")
    editor.wait_for_line("512 × 304 · 0.16 MP · 608 tokens")
    assert "bf16: image input" in editor.lines()
    editor.enter()
    editor.wait_for_line("512 × 304 · 0.16 MP · 608 tokens")
    assert editor.lines() == ["512 × 304 · 0.16 MP · 608 tokens"], "the latent's"


def test_the_latent_node_alone(editor: Editor) -> None:
    editor.add(LATENT)
    editor.show()
    editor.set_widgets(LATENT, aspect_ratio="16:9", megapixels="1")
    editor.wait_for_line("1344 × 768 · 1.03 MP · 4032 tokens")
    assert {"width", "height"}.isdisjoint(editor.shown_widgets(LATENT))


def test_lines_follow_the_form_through_the_request(editor: Editor) -> None:
    editor.load(shipped("text_to_image.json"))
    editor.set_widgets(INPUTS, aspect_ratio="16:9", lora="a/b", extra_lora="civitai.com/models/12")
    both = ("1344 × 768 · 1.03 MP · 4032 tokens", "Replicate: a/b", "CivitAI: 12")
    for line in both:
        editor.wait_for_line(line)
    editor.set_widgets(LATENT, aspect_ratio="1:1")
    editor.set_widgets(LORA, source="c/d")
    editor.page.wait_for_timeout(500)
    assert [editor.lines().count(line) for line in both] == [1, 1, 1], "the form's"
    editor.enter()
    for line in both:
        editor.wait_for_line(line)
    lines = editor.lines()
    assert [lines.count(line) for line in both] == [1, 1, 1], "the nodes'"
    assert "Replicate: c/d" not in lines
    for node_type in (LATENT, LORA):
        editor.cut(node_type, "request")
    editor.wait_for_line("1024 × 1024")
    editor.wait_for_line("Replicate: c/d")
    assert not set(both) & set(editor.lines())
    editor.leave()
    for line in both:
        editor.wait_for_line(line)


def test_lines_follow_the_form_into_a_subgraph(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.add(LATENT, (600, 150))
    editor.set_widgets(INPUTS, aspect_ratio="16:9")
    editor.connect(0, "request", 1, "request")
    editor.page.evaluate(
        """() => {
            const {graph, canvas} = window.app
            const {node} = graph.convertToSubgraph(new Set([graph.nodes[1]]))
            canvas.setGraph(node.subgraph)
        }"""
    )
    editor.show()
    editor.wait_for_line("1344 × 768")


def test_what_the_request_decides_is_greyed_until_the_wire_is_cut(editor: Editor) -> None:
    editor.add(INPUTS)
    for place, node_type in enumerate(DECIDED, 1):
        editor.add(node_type, (600 + 450 * (place % 2), 150 + 350 * (place // 2)))
    editor.show(scale=0.4)
    editor.wait_for_line("go_fast")
    editor.page.wait_for_timeout(500)
    values, heights = editor.prompt(), [editor.height(node_type) for node_type in DECIDED]
    for place in range(1, len(DECIDED) + 1):
        editor.connect(0, "request", place, "request")
    greyed = editor.wait_for_greyed(DECIDED)
    assert greyed == DECIDED
    wired = editor.prompt()
    for key, node in values.items():
        request = {} if node["class_type"] == INPUTS else {"request": ["1", 0]}
        assert wired[key]["inputs"] == node["inputs"] | request
    assert [editor.height(node_type) for node_type in DECIDED] == heights
    editor.shoot(f"greyed_{editor.look()}")
    for node_type in DECIDED:
        editor.cut(node_type, "request")
    nothing: dict[str, set[str]] = {node_type: set() for node_type in DECIDED}
    assert editor.wait_for_greyed(nothing) == nothing
    assert editor.prompt() == values
    assert [editor.height(node_type) for node_type in DECIDED] == heights


def test_a_seed_that_is_not_used_stays(editor: Editor) -> None:
    """Else the node, and everything behind it, would run anew for nothing."""
    editor.add(INPUTS)
    editor.add("FluxHotswapNoise", (600, 150))
    editor.set_widgets("FluxHotswapNoise", seed=5, control_after_generate="randomize")
    after_a_run = """() => {
        const {widgets} = window.app.graph.nodes[1]
        widgets.find(({name}) => name === 'control_after_generate').afterQueued()
        return widgets.find(({name}) => name === 'seed').value
    }"""
    editor.connect(0, "request", 1, "request")
    assert editor.page.evaluate(after_a_run) == 5
    editor.cut("FluxHotswapNoise", "request")
    assert editor.page.evaluate(after_a_run) != 5


def test_fields_are_read_through(editor: Editor) -> None:
    editor.add(INPUTS, (100, 150))
    editor.set_widgets(INPUTS, aspect_ratio="16:9", prompt="a fox", seed=7, go_fast=True)
    editor.add("FluxHotswapFields", (600, 150))
    editor.add(INPUTS, (950, 150))
    editor.add(LATENT, (1450, 150))
    editor.show(scale=0.6)
    editor.connect(0, "request", 1, "request")
    for name in ("prompt", "seed", "aspect_ratio", "go_fast"):
        editor.connect(1, name, 2, name)
    editor.page.evaluate("() => window.app.graph.nodes[3].widgets[0].value = 'custom'")
    for name in ("width", "height"):
        editor.connect(1, name, 3, name)
    editor.wait_for_line("1344 × 768")
    editor.page.wait_for_timeout(300)
    assert [line for line in editor.lines() if "×" in line] == [
        "1344 × 768 · 1.03 MP · 4032 tokens"
    ] * 3
    editor.page.evaluate(
        """() => {
            const {canvas, graph} = window.app
            canvas.selectItems?.([graph.nodes[2]]) ?? canvas.selectNodes([graph.nodes[2]])
        }"""
    )
    clipboard(editor, "")
    editor.page.evaluate(
        "() => window.app.extensionManager.command.execute('FluxHotswap.CopyRequest')"
    )
    editor.wait("() => navigator.clipboard.readText().then(text => text.length > 2)")
    copied = json.loads(editor.page.evaluate("() => navigator.clipboard.readText()"))
    wanted = {"prompt": "a fox", "seed": 7, "aspect_ratio": "16:9", "go_fast": True}
    assert {key: copied[key] for key in wanted} == wanted


SOURCES = {
    "fofr/flux-pixar-cars": "Replicate: fofr/flux-pixar-cars",
    "https://huggingface.co/a/b/blob/main/x.safetensors": "Hugging Face: a/b@main/x.safetensors",
    "civitai.com/models/12345": "CivitAI: 12345",
    "https://example.com/x.safetensors?key=secret": "Link: https://example.com/x.safetensors",
    "C:/x.safetensors": "a path outside the loras folders is not read",
}


def test_the_source_is_recognised(editor: Editor) -> None:
    editor.add(LORA)
    editor.show()
    for text, line in SOURCES.items():
        editor.set_widgets(LORA, source=text)
        editor.wait_for_line(line)
        assert not any("secret" in shown for shown in editor.lines())
    editor.set_widgets(LORA, source="")
    editor.wait(
        "() => [...document.querySelectorAll('.flux-hotswap-lines')]"
        ".every(panel => panel.offsetParent === null || panel.children.length === 0)"
    )


def test_a_local_file_is_found_or_not(editor: Editor) -> None:
    path = editor.comfy.server.models_dir / "loras" / "here.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lora())
    editor.add(LORA)
    editor.show()
    editor.set_widgets(LORA, source="here.safetensors")
    editor.wait_for_line("Is here: here.safetensors (")
    editor.set_widgets(LORA, source="gone.safetensors")
    editor.wait_for_line("No such file in the loras folders")


REQUEST: dict[str, Any] = {
    "prompt": "a (red) fox",
    "aspect_ratio": "custom",
    "width": 512,
    "height": 304,
    "model": "schnell",
    "num_inference_steps": 4,
    "seed": 4242,
    "go_fast": False,
    "lora_weights": "fofr/flux-pixar-cars",
    "guidance_scale": 3.25,
    "lora_scale": 0.875,
}


def test_paste_and_copy_a_request(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.show()
    clipboard(editor, json.dumps({"input": REQUEST}))
    editor.choose(INPUTS, "Paste request JSON")
    editor.wait_for_line("512 × 304")
    queued = editor.inputs()
    wanted = {key: value for key, value in REQUEST.items() if key != "lora_weights"}
    assert {key: queued[key] for key in wanted} == wanted
    assert queued["lora"] == REQUEST["lora_weights"]
    assert queued["num_outputs"] == 1
    clipboard(editor, "")
    editor.choose(INPUTS, "Copy request JSON")
    editor.wait("() => navigator.clipboard.readText().then(text => text.length > 2)")
    copied = json.loads(editor.page.evaluate("() => navigator.clipboard.readText()"))
    assert {key: copied[key] for key in wanted} == wanted
    assert "image" not in copied


def test_a_wrong_request_changes_nothing_and_says_why(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.show()
    editor.set_widgets(INPUTS, prompt="kept", seed=5)
    before = editor.inputs()
    clipboard(editor, '{"prompt": "x", "num_outputs": 9}')
    editor.choose(INPUTS, "Paste request JSON")
    message = "num_outputs: 9 is not allowed; give a whole number from 1 to 4"
    editor.page.get_by_text(message).first.wait_for(timeout=10_000)
    assert editor.inputs() == before


def test_a_download_is_shown_cancelled_and_tried_again(editor: Editor) -> None:
    name, files = f"/slow{id(editor)}.safetensors", editor.comfy.files
    state = loras.diffusers(loras.blocks(seed=id(editor) % 1000))
    state["transformer.nowhere.lora_A.weight"] = torch.zeros(1000, 3000)
    whole = loras.as_bytes(state)
    editor.load(shipped("text_to_image.json"))
    editor.comfy.expect_traceback(name)
    ask = {**SMALL, "lora": files.url + name, "seed": 3, CONTROL: "fixed"}
    editor.set_widgets(INPUTS, **ask, disable_safety_checker=True)
    editor.queue()
    editor.wait_for_line("The download has failed")
    editor.page.keyboard.press("Escape")  # the editor's own words about it
    files.file(name, whole, rate=1 << 20)
    try_again(editor)
    editor.wait_for_line("of 12.6 MB")
    assert not any("failed" in line for line in editor.lines())
    editor.enter()
    editor.wait_for_line("of 12.6 MB")
    editor.leave()
    editor.wait_for_line("of 12.6 MB")
    editor.wait("() => /Downloading, ([2-9]|1.)[.]/.test(document.body.innerText)")
    cancel = editor.page.locator(".flux-hotswap-lines button >> visible=true")
    cancel.first.dispatch_event("pointerdown")
    editor.wait_for_line("The download was cancelled")
    editor.shoot(f"download_cancelled_{editor.look()}")
    assert any("interrupted" in str(entry["status"]["messages"]) for entry in history(editor))
    assert not any("Downloading" in line for line in editor.lines())
    editor.set_widgets(INPUTS, lora="a/b")
    editor.wait("() => !document.body.innerText.includes('The download was cancelled')")
    editor.set_widgets(INPUTS, lora=files.url + name)
    editor.wait_for_line("The download was cancelled")
    asked = len(files.asked(name))
    files.file(name, whole)
    try_again(editor)
    editor.wait_for_line("Is here: flux-hotswap/")
    assert not any("cancelled" in line for line in editor.lines())
    ranges = [seen.headers.get("range", "") for seen in files.asked(name)[asked:]]
    assert any(re.match("bytes=[1-9]", span) for span in ranges), "it goes on where it stopped"
    editor.wait_for_line("Seed 3 · ", ms=60_000)


def try_again(editor: Editor) -> None:
    editor.page.get_by_role("button", name="Try again").and_(
        editor.page.locator(".flux-hotswap-lines button")
    ).first.click()


def clipboard(editor: Editor, text: str) -> None:
    editor.page.bring_to_front()
    editor.page.evaluate("text => navigator.clipboard.writeText(text)", text)


def history(editor: Editor) -> list[dict[str, Any]]:
    return list(editor.comfy.client.history().values())


def test_the_help_panel_shows_the_page(editor: Editor) -> None:
    editor.add(LATENT)
    editor.show(scale=1)
    editor.page.evaluate(
        "() => window.app.canvas.select?.(window.app.graph.nodes[0])"
        " ?? window.app.canvas.selectNode(window.app.graph.nodes[0])"
    )
    with editor.page.expect_response("**/docs/images/FluxHotswapLatent.webp") as shown:
        editor.page.locator('[data-testid="info-button"]').click(timeout=20_000)
    assert shown.value.ok
    text = "Makes the latent that sampling starts from, at the hosted model's exact size"
    editor.page.get_by_text(text).first.wait_for(timeout=10_000)


def wrong(field: Field) -> Any:
    """A value that a field of the form must not have."""
    match field.kind:
        case Kind.ENUM:
            return "nonsense"
        case Kind.BOOLEAN:
            return "maybe"
        case Kind.INTEGER | Kind.NUMBER:
            return (field.minimum or 0) - 2
        case _:
            return "no-such.safetensors"


def test_an_error_lands_on_its_field_and_on_no_other(editor: Editor) -> None:
    editor.load(shipped("text_to_image.json"))
    editor.wait_for_line("4096 tokens")
    editor.set_widgets(INPUTS, aspect_ratio="custom", control_after_generate="fixed")
    editor.wait_for_line("bf16: custom size")
    for field in FIELDS:
        if field.name == "prompt":  # takes any text
            continue
        found = editor.page.evaluate(
            """async ([type, name, wrong]) => {
                const node = nodeOf(type)
                const widget = node.widgets.find(widget => widget.name === name)
                const before = widget.value
                widget.value = wrong
                await window.app.queuePrompt(0)
                await new Promise(done => setTimeout(done, 50))
                widget.value = before
                const told = Object.values(window.app.lastNodeErrors ?? {})
                return [
                    told.flatMap(({errors}) => errors.map(error => error.extra_info.input_name)),
                    everyNode().flatMap(({type, inputs}) => (inputs ?? [])
                        .filter(input => input.hasErrors).map(input => `${type} ${input.name}`)),
                ]
            }""",
            [INPUTS, field.name, wrong(field)],
        )
        assert found == [[field.name], [f"{INPUTS} {field.name}"]], field.name
        if field.name == "lora":
            editor.shoot(f"error_{editor.look()}")
        editor.page.keyboard.press("Escape")  # the editor's own words about it
