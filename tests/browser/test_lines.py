"""What the lines say of a prompt and of a LoRA, and which LoRAs are offered, in a real browser."""

from __future__ import annotations

import pytest
import torch
from browser.conftest import LOOKS
from browser.editor import INPUTS, Editor, picture, shipped
from mini_flux import loras
from playwright.sync_api import Locator

LORA = "FluxHotswapLora"
QUERY = "transformer.transformer_blocks.3.attn.to_q"
every_look = pytest.mark.parametrize("look", list(LOOKS), indirect=True)
NAMES = ["offered/a dog.safetensors", "offered/a fox.safetensors"]
LINK = "https://huggingface.co/a/b/blob/main/x.safetensors"


def put_lora(editor: Editor, name: str, phrase: str) -> None:
    pair = {
        f"{QUERY}.lora_A.weight": torch.full((4, 3072), 0.01),
        f"{QUERY}.lora_B.weight": torch.full((3072, 4), 0.01),
    }
    path = editor.comfy.server.models_dir / "loras" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    loras.write(pair, path, {"modelspec.trigger_phrase": phrase})


def test_a_click_puts_a_trigger_word_into_the_prompt(editor: Editor) -> None:
    put_lora(editor, "words.safetensors", "m1x dog")
    editor.add(INPUTS)
    # 1.32.9 notes nothing that can be undone before a workflow was opened.
    editor.load(editor.page.evaluate("() => window.app.graph.serialize()"))
    editor.show(scale=0.6)
    editor.set_widgets(INPUTS, prompt="a fox", lora="words.safetensors")
    for line in ("LoRA · rank 4 · diffusers", "2 of 2 keys fit", "Trigger words: m1x dog"):
        editor.wait_for_line(line)
    editor.shoot(f"trigger_words_{editor.look()}")
    editor.page.mouse.click(
        1400, 300
    )  # the editor notes what can be undone when a button is let go
    editor.page.wait_for_timeout(300)
    word = editor.page.locator(".flux-hotswap-lines button >> visible=true")
    for _ in range(2):  # the second time it is there already
        word.first.click()
        editor.page.wait_for_timeout(300)
        assert editor.inputs()["prompt"] == "a fox, m1x dog"
    word.first.focus()
    editor.set_widgets(INPUTS, prompt="by keyboard")
    editor.page.wait_for_timeout(300)
    editor.page.keyboard.press("Enter")
    editor.wait("() => nodeOf('FluxHotswapInputs').widgets[0].value === 'by keyboard, m1x dog'")
    editor.set_widgets(INPUTS, prompt="a fox, m1x dog")
    editor.page.wait_for_timeout(300)
    editor.command("Comfy.Undo")
    editor.wait("() => nodeOf('FluxHotswapInputs')?.widgets[0].value === 'a fox'")
    assert editor.inputs()["lora"] == "words.safetensors"


def test_a_lora_node_puts_trigger_words_into_the_prompt_of_its_form(editor: Editor) -> None:
    put_lora(editor, "words.safetensors", "m1x dog")
    editor.add(LORA)
    editor.add(INPUTS, (600, 150))
    editor.show(scale=0.6)
    editor.set_widgets(INPUTS, prompt="")
    editor.set_widgets(LORA, source="words.safetensors")
    editor.wait_for_line("Trigger words: m1x dog")
    assert editor.page.locator(".flux-hotswap-lines button").count() == 0, "whose prompt?"
    editor.set_widgets(LORA, source="")
    editor.set_widgets(INPUTS, lora="words.safetensors")
    editor.connect(1, "request", 0, "request")
    editor.wait("() => document.querySelectorAll('.flux-hotswap-lines button').length === 2")
    editor.page.locator(".flux-hotswap-lines button >> visible=true").first.click()
    editor.wait("() => nodeOf('FluxHotswapInputs').widgets[0].value === 'm1x dog'")


def test_a_prompt_that_is_longer_than_what_is_read_is_told(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.show(scale=0.6)
    editor.set_widgets(INPUTS, prompt="a fox " * 50, model="schnell")
    editor.wait_for_line("of 256 tokens for T5, 102 of 77 for CLIP")
    editor.set_widgets(INPUTS, model="dev")
    editor.wait_for_line("of 512 tokens for T5, 102 of 77 for CLIP")
    editor.set_widgets(INPUTS, prompt="a fox")
    editor.wait("() => !document.body.innerText.includes('for CLIP')")


def test_files_that_have_come_are_seen_when_the_editor_looks_again(editor: Editor) -> None:
    name = f"late{id(editor)}"
    editor.comfy.client.upload("changed.png", picture(512, 256))
    editor.add(INPUTS)
    editor.add(LORA, (600, 150))
    editor.show(scale=0.6)
    editor.set_widgets(INPUTS, image=f"{name}.png", lora="changed.safetensors")
    editor.set_widgets(LORA, source=f"{name}.safetensors")
    editor.wait_for_line("Size: set by the image")
    editor.wait_for_line("No such file in the loras folders")
    editor.comfy.client.upload(f"{name}.png", picture(500, 300))
    put_lora(editor, f"{name}.safetensors", "")
    look_again(editor)
    editor.wait_for_line("512 × 304")
    editor.wait_for_line(f"Is here: {name}.safetensors")
    editor.comfy.client.upload(f"{name}.png", picture(256, 256))
    look_again(editor)
    editor.wait_for_line("256 × 256")


def look_again(editor: Editor) -> None:
    """What the editor's key R does."""
    editor.command("Comfy.RefreshNodeDefinitions")


def click_field(editor: Editor, name: str) -> Locator:
    """Click a text field of the form; the text box that it opens, or is."""
    page = editor.page
    if page.evaluate("() => window.LiteGraph.vueNodesMode"):
        drawn = page.locator(f".lg-node-widget input[aria-label={name}] >> visible=true").first
        drawn.click()
        return drawn
    place = page.evaluate(
        """([type, name]) => {
            const {ds, canvas} = window.app.canvas
            const node = nodeOf(type)
            const widget = node.widgets.find(widget => widget.name === name)
            const {left, top} = canvas.getBoundingClientRect()
            return [left + (node.pos[0] + 120 + ds.offset[0]) * ds.scale,
                top + (node.pos[1] + widget.last_y + 10 + ds.offset[1]) * ds.scale]
        }""",
        [INPUTS, name],
    )
    page.mouse.click(*place)
    return page.locator(".graphdialog input.value")


def type_into(editor: Editor, name: str, text: str) -> Locator:
    field = click_field(editor, name)
    field.wait_for()
    editor.page.wait_for_timeout(50)  # the dialog takes the focus a little later
    field.fill(text)
    return field


def wait_for_value(editor: Editor, name: str, value: str) -> None:
    editor.wait(
        "([type, name, value]) => nodeOf(type).widgets.some("
        "widget => widget.name === name && widget.value === value)",
        [INPUTS, name, value],
    )
    assert editor.inputs()[name] == value


def wait_for_two(editor: Editor) -> None:
    """What was typed has narrowed the list down."""
    editor.wait("() => document.querySelectorAll('#flux-hotswap-suggestions > *').length === 2")


@every_look
def test_a_lora_that_is_here_is_offered_and_chosen(editor: Editor) -> None:
    page = editor.page
    for name, words in zip(NAMES, ["m1x dog", ""], strict=True):
        put_lora(editor, name, words)
    put_lora(editor, "another.safetensors", "")
    editor.add(INPUTS)
    editor.show(scale=0.7, left=250)
    editor.wait_for_line("go_fast")
    offered = page.get_by_role("listbox", name="LoRAs that are here").get_by_role("option")
    field = type_into(editor, "lora", "fered/a")
    wait_for_two(editor)
    assert [text.split("\n")[0] for text in offered.all_inner_texts()] == NAMES
    assert offered.first.inner_text().endswith(" B · Trigger words: m1x dog")
    editor.shoot(f"suggestions_{editor.look()}")

    field.press("ArrowDown")
    field.press("ArrowUp")  # around to the last
    field.press("Enter")
    wait_for_value(editor, "lora", NAMES[1])
    assert not offered.count()

    type_into(editor, "lora", "A DOG offered")
    page.get_by_role("option", name=NAMES[0]).click()
    wait_for_value(editor, "lora", NAMES[0])
    editor.wait_for_line("Trigger words: m1x dog")
    page.mouse.click(1400, 300)

    field = type_into(editor, "extra_lora", "offered")
    wait_for_two(editor)
    field.press("Escape")
    assert not offered.count()
    field.fill(LINK)
    field.press("Enter")
    wait_for_value(editor, "extra_lora", LINK)
    editor.wait_for_line("Hugging Face: a/b@main/x.safetensors")
    page.mouse.click(1400, 300)

    click_field(editor, "image")
    page.wait_for_timeout(400)
    assert not offered.count(), "other fields name no LoRA"
    page.keyboard.press("Escape")


@pytest.mark.parametrize("look", ["newest, Nodes 2.0"], indirect=True)
def test_they_are_offered_in_an_app_too(editor: Editor) -> None:
    page = editor.page
    put_lora(editor, NAMES[0], "m1x dog")
    editor.load(shipped("text_to_image.json"))
    editor.wait_for_line("4096 tokens")
    editor.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for()
    if page.get_by_text("Skip", exact=True).count():  # an offer to show how apps work
        page.get_by_text("Skip", exact=True).first.click()
    type_into(editor, "lora", "a dog")
    page.get_by_role("option", name=NAMES[0]).click()
    wait_for_value(editor, "lora", NAMES[0])
    editor.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for(state="hidden")
