"""A model that is not there: the editor itself says so, from the links in our templates."""

from __future__ import annotations

import json

import pytest
from browser.editor import Editor, shipped
from playwright.sync_api import Browser
from runtime.session import Comfy


@pytest.mark.parametrize("version", ["comfy", "newest"])
def test_a_missing_model_is_offered(
    version: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    comfy: Comfy = request.getfixturevalue(version)
    settings = {"Comfy.Workflow.ShowMissingModelsWarning": True}
    editor = Editor.open(browser, comfy, **settings)
    text = json.dumps(shipped("text_to_image.json"))
    editor.load(json.loads(text.replace("ae.safetensors", "nobodys_vae.safetensors")))
    said = editor.page.locator("text=nobodys_vae.safetensors >> visible=true").first
    said.wait_for(timeout=20_000)
    editor.shoot(f"missing_{version}")
    others = ("clip_l.safetensors", "t5xxl_fp16.safetensors", "flux1-dev.safetensors")
    assert not [name for name in others if editor.page.get_by_text(f"{name} is missing").count()]
    editor.close()
