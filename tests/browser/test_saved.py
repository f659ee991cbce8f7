"""What has been drawn: what the Save node says and offers, and its files dropped on the editor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser.editor import CONTROL, INPUTS, SMALL, Editor, picture, shipped
from mini_flux import loras

from flux_hotswap.prediction.fill import fill_prompt


def on_disk(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_queue_see_the_links_and_drop_the_files(editor: Editor, tmp_path: Path) -> None:
    editor.load(shipped("flux_lora_schema.json"))
    editor.set_widgets(INPUTS, **SMALL, seed=12, disable_safety_checker=True)
    name, data = editor.draw()
    editor.wait_for_line(name)
    href = editor.page.locator(".flux-hotswap-lines a").first.get_attribute("href")
    assert href is not None
    assert editor.page.request.get(f"{editor.comfy.server.url}{href}").body() == data
    types, files = editor.node_types(), [(name, data)]
    for output_format in ("png", "jpg"):
        editor.set_widgets(INPUTS, output_format=output_format)
        files.append(editor.draw())
    assert [file.rpartition(".")[2] for file, _ in files] == ["webp", "png", "jpg"]
    for file in files:
        editor.clear()
        assert editor.node_types() == []
        editor.drop(on_disk(tmp_path, *file))
        editor.wait("() => everyNode().length > 5")
        assert editor.node_types() == types
        inputs = editor.inputs()
        assert {key: inputs[key] for key in SMALL} == SMALL
    drop_on_load_image(editor, on_disk(tmp_path, *files[-1]))


def drop_on_load_image(editor: Editor, jpg: Path) -> None:
    """A node that takes pictures takes those with a graph too."""
    editor.clear()
    editor.add("LoadImage", (100, 150))
    editor.show(scale=1)
    editor.page.wait_for_timeout(300)
    left, top, right, _ = editor.boxes()["Load Image"]
    editor.drop(jpg, ((left + right) / 2, top + 12))
    editor.wait("name => window.app.graph.nodes[0]?.widgets[0].value === name", jpg.name)
    assert editor.node_types() == ["LoadImage"]


def test_a_jpg_of_an_api_client_brings_back_what_it_queued(editor: Editor, tmp_path: Path) -> None:
    ask = {"prompt": "a fox", **SMALL, "output_format": "jpg", "seed": 12}
    sent = fill_prompt(shipped("api/text_to_image.json"), {**ask, "disable_safety_checker": True})
    (image,) = editor.comfy.run(sent).images()
    editor.drop(on_disk(tmp_path, image["filename"], editor.comfy.client.view(image)))
    editor.wait("type => Boolean(nodeOf(type))", INPUTS)
    inputs = editor.inputs()
    assert {key: inputs[key] for key in ask} == ask


def test_a_jpg_of_others_is_the_editors(editor: Editor, tmp_path: Path) -> None:
    """Without a graph of ours in it, the editor does what it does without us."""
    editor.add("FluxHotswapNoise")
    editor.drop(on_disk(tmp_path, "plain.jpg", picture(64, 64, "JPEG")))
    editor.wait(
        """() => everyNode().some(node => node.type === 'LoadImage')
            || document.body.innerText.includes('plain.jpg')"""
    )
    assert "FluxHotswapNoise" in editor.node_types()


def test_what_made_a_picture_can_be_used_again(editor: Editor) -> None:
    """The template's form and Save node stand apart, with a subgraph between them."""
    lora = editor.comfy.server.models_dir / "loras" / "shown.safetensors"
    lora.parent.mkdir(exist_ok=True)
    loras.write(loras.diffusers(loras.blocks()), lora)
    editor.load(shipped("text_to_image.json"))
    prompt = f"a fox in {editor.look()}"  # one server, and its cache, serves two looks
    ask = {**SMALL, "prompt": prompt, "lora": lora.name, "lora_scale": 0.5, "seed": 12}
    editor.set_widgets(INPUTS, **ask, disable_safety_checker=True, control_after_generate="fixed")
    editor.draw()
    editor.wait_for_line("Seed 12 · ")
    shown = editor.lines()[-4:]
    assert re.fullmatch(r"Seed 12 · \d+\.\d s · bf16", shown[1])
    assert shown[2] == "LoRA: shown.safetensors 0.5"
    editor.shoot(f"result_{editor.look()}")

    change = {"prompt": "a hen", "seed": 99, "control_after_generate": "randomize"}
    editor.set_widgets(INPUTS, **change)
    press(editor, "Copy request JSON")
    editor.wait("() => navigator.clipboard.readText().then(text => text.includes('a fox'))")
    copied = json.loads(editor.page.evaluate("() => navigator.clipboard.readText()"))
    assert {key: copied[key] for key in ask} == ask

    press(editor, "Use this seed")
    form = editor.inputs()
    assert (form["seed"], form["prompt"], control(editor)) == (12, "a hen", "fixed")
    editor.command("Comfy.Undo")
    editor.wait(f"() => nodeOf('{INPUTS}').widgets.some(({{value}}) => value === 99)")
    assert control(editor) == "randomize"
    editor.wait_for_line("Seed 12 · ")

    editor.set_widgets(INPUTS, **ask, control_after_generate="fixed")
    editor.draw()
    editor.page.wait_for_timeout(500)
    assert editor.lines()[-4:] == shown, "from the cache: the picture took what it took"
    editor.set_widgets(INPUTS, seed=13)
    editor.draw()
    editor.wait_for_line("Seed 13 · ")
    assert not any("Seed 12" in line for line in editor.lines())


def press(editor: Editor, label: str) -> None:
    """Click a button below the picture."""
    editor.page.bring_to_front()
    editor.page.get_by_role("button", name=label).and_(
        editor.page.locator(".flux-hotswap-lines button")
    ).click()


def control(editor: Editor) -> str:
    return editor.page.evaluate(
        "([type, name]) => nodeOf(type).widgets.find(widget => widget.name === name).value",
        [INPUTS, CONTROL],
    )


def draw_from_image(editor: Editor, seed: int, **more: Any) -> None:
    """Open the template and draw from an image of 256 x 128."""
    editor.comfy.client.upload("before.png", picture(256, 128))
    editor.load(shipped("image_to_image.json"))
    editor.set_widgets("LoadImage", image="before.png")
    ask = {"num_inference_steps": 1, "output_format": "png", "disable_safety_checker": True}
    editor.set_widgets(INPUTS, seed=seed, **ask, **more)
    editor.wait_for_line("256 × 128")
    editor.draw()
    editor.wait_for_line(f"Seed {seed} · ")


@pytest.mark.parametrize("look", ["own", "newest, Nodes 2.0"], indirect=True)
def test_a_result_is_compared_with_its_input_image(editor: Editor) -> None:
    draw_from_image(editor, seed=21, num_outputs=2)
    low = editor.height("FluxHotswapSave")
    box = editor.page.locator(".flux-hotswap-compare >> visible=true")
    assert not box.count()
    press(editor, "Compare")
    editor.wait(
        "() => [...document.querySelectorAll('.flux-hotswap-compare img')]"
        ".filter(image => image.naturalWidth === 256).length === 2"
    )
    editor.page.wait_for_timeout(300)
    wide, tall = (
        (box.bounding_box() or {}).get("width", 0),
        (box.bounding_box() or {}).get("height", 1),
    )
    assert abs(wide / tall - 2) < 0.02, "the images keep their shape"
    slider = box.get_by_role("slider", name="Move between before and after")
    before = box.locator("img").nth(1)
    slider.focus()
    slider.press("Home")
    assert "inset(0px 100% 0px 0px)" in str(before.get_attribute("style"))
    slider.click(position={"x": wide * 0.75, "y": tall / 2})
    assert 70 <= int(slider.input_value()) <= 80
    editor.shoot(f"compared_{editor.look()}")
    after = box.locator("img").first
    first = after.get_attribute("src")
    press(editor, "Image 1 of 2")
    editor.wait_for_line("Image 2 of 2")
    assert after.get_attribute("src") != first
    assert "flux-hotswap_before" not in json.dumps(
        editor.page.evaluate("() => window.app.graph.serialize()")
    )
    press(editor, "Compare")
    box.wait_for(state="detached")
    assert editor.height("FluxHotswapSave") == low


@pytest.mark.parametrize("look", ["own", "newest, Nodes 2.0"], indirect=True)
def test_a_comparison_is_there_when_its_node_comes_back_into_sight(editor: Editor) -> None:
    draw_from_image(editor, seed=31, control_after_generate="fixed")
    press(editor, "Compare")
    wide = wait_for_comparison(editor)
    move(editor, -20_000)
    editor.set_widgets(INPUTS, seed=32)
    editor.draw()
    editor.page.wait_for_timeout(1000)  # its images are here by then
    move(editor, 20_000)
    editor.wait_for_line("Seed 32 · ")
    assert abs(wait_for_comparison(editor) - wide) < 2
    resize(editor, 40)
    editor.wait(f"() => ({COMPARISON}).width > {wide} + 20")
    resize(editor, -40)
    editor.wait(f"() => Math.abs(({COMPARISON}).width - {wide}) < 2")
    wait_for_comparison(editor)
    press(editor, "Compare")


COMPARISON = (
    "document.querySelector('.flux-hotswap-compare')?.getBoundingClientRect() ?? new DOMRect()"
)


def wait_for_comparison(editor: Editor) -> float:
    """How wide it is, once it has the shape of its images and the panel has room for it."""
    shape = "Math.abs(box.width / box.height - 2) < 0.02"
    panel = "document.querySelector('.flux-hotswap-compare').closest('.flux-hotswap-lines')"
    room = f"box.bottom <= {panel}.getBoundingClientRect().bottom"
    editor.wait(f"() => {{ const box = {COMPARISON}; return {shape} && {room} }}")
    return editor.page.evaluate(f"() => ({COMPARISON}).width")


def move(editor: Editor, by: int) -> None:
    """Move what the canvas shows."""
    editor.page.evaluate(
        """by => {
            window.app.canvas.ds.offset[0] += by
            window.app.canvas.setDirty(true, true)
        }""",
        by,
    )


def resize(editor: Editor, by: int) -> None:
    """Make the Save node wider."""
    editor.page.evaluate(
        """by => {
            const node = nodeOf('FluxHotswapSave')
            node.setSize([node.size[0] + by, node.size[1]])
            window.app.canvas.setDirty(true, true)
        }""",
        by,
    )
