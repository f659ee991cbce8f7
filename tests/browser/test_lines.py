"""What the lines say of a prompt and of a LoRA file that is here, in a real browser."""

from __future__ import annotations

import torch
from browser.editor import INPUTS, Editor
from mini_flux import loras

LORA = "FluxHotswapLora"
QUERY = "transformer.transformer_blocks.3.attn.to_q"


def put_lora(editor: Editor, name: str, phrase: str) -> None:
    pair = {
        f"{QUERY}.lora_A.weight": torch.full((4, 3072), 0.01),
        f"{QUERY}.lora_B.weight": torch.full((3072, 4), 0.01),
    }
    path = editor.comfy.server.models_dir / "loras" / name
    path.parent.mkdir(exist_ok=True)
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
