"""The editor in other languages, and with a keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.editor import INPUTS, Editor, shipped
from playwright.sync_api import Browser
from runtime.session import Comfy

SAID = {
    "pt-BR": ("FLUX Hotswap Entradas", "proporção", "bf16: tamanho próprio"),
    "zh": ("FLUX Hotswap 输入", "宽高比", "bf16: 自定义尺寸"),
}


@pytest.fixture(params=SAID)
def foreign(request: pytest.FixtureRequest, browser: Browser, newest: Comfy) -> Iterator[Editor]:
    settings = {"Comfy.Locale": request.param, "Comfy.VueNodes.Enabled": True}
    opened = Editor.open(browser, newest, **settings)
    yield opened
    assert opened.errors == []
    opened.close()
    newest.client.post("/settings", {"Comfy.Locale": "en"})


def test_names_and_lines_are_translated(foreign: Editor) -> None:
    locale = foreign.page.evaluate("() => window.app.extensionManager.setting.get('Comfy.Locale')")
    title, label, line = SAID[locale]
    foreign.clear()
    foreign.add(INPUTS)
    foreign.show()
    foreign.set_widgets(INPUTS, aspect_ratio="custom")
    foreign.wait_for_line(line)
    for text in (title, label):
        foreign.page.get_by_text(text, exact=True).first.wait_for(timeout=10_000)
    foreign.shoot(f"language_{locale}")
    foreign.load(shipped("text_to_image.json"))
    foreign.wait_for_line("1024 × 1024")
    foreign.enter()
    foreign.wait_for_line("1024 × 1024")
    assert len(foreign.lines()) == 1, "the latent follows the form, whatever it is called"


def test_lines_follow_a_change_of_language(editor: Editor) -> None:
    editor.add(INPUTS)
    editor.set_widgets(INPUTS, aspect_ratio="custom")
    # 1.32.9 opens anew what was opened, as it was then.
    editor.load(editor.page.evaluate("() => window.app.graph.serialize()"))
    editor.wait_for_line("bf16: custom size")
    choose = "locale => window.app.extensionManager.setting.set('Comfy.Locale', locale)"
    try:
        editor.page.evaluate(choose, "zh")
        editor.wait_for_line(SAID["zh"][2])
    finally:
        editor.page.evaluate(choose, "en")
    editor.wait_for_line("bf16: custom size")


def test_a_source_is_recognised_while_it_is_typed(browser: Browser, newest: Comfy) -> None:
    editor = Editor.open(browser, newest, **{"Comfy.VueNodes.Enabled": True})
    editor.clear()
    editor.add("FluxHotswapLora")
    editor.show(scale=1)
    field = editor.page.locator("input[aria-label=source]")
    field.click(timeout=20_000)
    editor.page.keyboard.type("fofr/flux-pixar-cars", delay=15)
    editor.wait_for_line("Replicate: fofr/flux-pixar-cars")
    editor.shoot("typing")
    assert editor.errors == []
    editor.close()
