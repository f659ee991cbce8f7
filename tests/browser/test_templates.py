"""The shipped workflows as people meet them: opened, looked into, as an app, as a blueprint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from browser.conftest import LOOKS
from browser.editor import DECIDED, INPUTS, SMALL, Box, Editor, shipped
from playwright.sync_api import Browser

from flux_hotswap.prediction.spec import FIELDS
from flux_hotswap.tools.export import flat
from flux_hotswap.tools.recipes import BLUEPRINT, EXAMPLE_IMAGE, RECIPES

PAGE = {"width": 1440, "height": 900}
NAMES = [recipe.name for recipe in RECIPES]
WITH_PICTURE = ("image_to_image", "inpaint")
READABLE = 0.73
"""The scale at which the smallest letters are still 8 pixels high."""

BOTH = ("own", "newest, Nodes 2.0")
"""Each editor, and each way to draw nodes, once."""

every_look = pytest.mark.parametrize("look", list(LOOKS), indirect=True)
both_looks = pytest.mark.parametrize("look", BOTH, indirect=True)
newest_looks = pytest.mark.parametrize("look", ["newest", "newest, Nodes 2.0"], indirect=True)


@pytest.fixture
def laptop(editor: Editor) -> Iterator[Editor]:
    """The editor on a small screen."""
    before = editor.page.viewport_size
    assert before is not None
    editor.page.set_viewport_size(PAGE)  # pyright: ignore[reportArgumentType]
    yield editor
    editor.page.set_viewport_size(before)


def open_template(editor: Editor, name: str) -> None:
    """Choose a template of ours, as a hand would."""
    page = editor.page
    editor.command("Comfy.BrowseTemplates")
    page.get_by_text("flux-hotswap", exact=True).last.click(timeout=20_000)
    page.get_by_text(name, exact=True).first.click()
    editor.wait("type => Boolean(window.nodeOf(type))", INPUTS)
    editor.wait_for_line("bf16: image input" if name in WITH_PICTURE else "4096 tokens")
    page.wait_for_timeout(1500)  # the newest editor moves to the nodes
    if page.locator("[role=dialog]").count():  # the models' links, where the editor offers them
        page.keyboard.press("Escape")
        page.locator("[role=dialog]").first.wait_for(state="hidden")


def complaints(editor: Editor) -> list[str]:
    """What the editor's toasts say."""
    said = editor.page.locator(".p-toast-message, [role=alert]").all_inner_texts()
    return [text for text in said if text.strip()]


def apart(one: Box, two: Box) -> bool:
    return one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


@every_look
@pytest.mark.parametrize("name", ["text_to_image", "inpaint"])
def test_a_template_opens_readable(laptop: Editor, name: str) -> None:
    opens_readable(laptop, name)


@both_looks
@pytest.mark.parametrize("name", ["image_to_image", "flux_lora_schema"])
def test_another_template_opens_readable(laptop: Editor, name: str) -> None:
    opens_readable(laptop, name)


def opens_readable(laptop: Editor, name: str) -> None:
    before = complaints(laptop)  # what earlier tests were told, and the editor still shows
    open_template(laptop, name)
    boxes = laptop.boxes()
    pictures = {"Load Image"} if name in WITH_PICTURE else set[str]()
    title = next(recipe.title for recipe in RECIPES if recipe.name == name)
    ours = {"FLUX Hotswap Inputs", "FLUX Hotswap Run", "FLUX Hotswap Save"}
    assert boxes.keys() == ours | pictures | {title}
    for left, top, right, bottom in boxes.values():
        assert left >= 55, "right of the editor's bar"
        assert top >= 75, "below its tabs"
        assert right <= PAGE["width"]
        assert bottom <= PAGE["height"]
    assert all(apart(*pair) for pair in itertools.combinations(boxes.values(), 2))
    assert laptop.page.evaluate("() => window.app.canvas.ds.scale") >= READABLE
    assert [text for text in complaints(laptop) if text not in before] == []
    laptop.shoot(f"template_{name}_{laptop.look()}")


@every_look
@pytest.mark.parametrize("name", NAMES)
def test_a_template_queues_what_the_api_prompt_says(editor: Editor, name: str) -> None:
    editor.load(shipped(f"{name}.json"))
    editor.wait_for_line("bf16: image input" if name in WITH_PICTURE else "go_fast")
    if name in WITH_PICTURE:
        editor.set_widgets("LoadImage", image=EXAMPLE_IMAGE)
    queued, expected = flat(editor.prompt()), shipped(f"api/{name}.json")
    assert {key: node["class_type"] for key, node in queued.items()} == {
        key: node["class_type"] for key, node in expected.items()
    }
    for key, node in expected.items():
        assert queued[key]["inputs"] == node["inputs"], node["class_type"]


@every_look
def test_inside_it_is_tidy_and_what_the_request_decides_is_greyed(laptop: Editor) -> None:
    laptop.load(shipped("flux_lora_schema.json"))
    laptop.wait_for_line("4096 tokens")
    laptop.enter()
    laptop.wait_for_line("4096 tokens")
    laptop.page.wait_for_timeout(1000)
    boxes = laptop.boxes()
    assert len(boxes) == 14
    assert all(apart(*pair) for pair in itertools.combinations(boxes.values(), 2))
    inside = {kind: names for kind, names in DECIDED.items() if kind != "FluxHotswapSave"}
    assert laptop.wait_for_greyed(inside) == inside
    laptop.shoot(f"inside_{laptop.look()}")


@both_looks
def test_a_fresh_install_opens_without_an_error(look: Editor, browser: Browser) -> None:
    """Not every ComfyUI brings the example picture."""
    for file in look.comfy.server.input_dir.rglob("*.*"):
        file.unlink()
    vue = look.page.evaluate(
        "() => window.app.extensionManager.setting.get('Comfy.VueNodes.Enabled')"
    )
    fresh = Editor.open(browser, look.comfy, **{"Comfy.VueNodes.Enabled": vue})
    fresh.page.set_viewport_size(PAGE)  # pyright: ignore[reportArgumentType]
    served: list[str] = []
    fresh.page.on("response", lambda answer: served.append(answer.url) if answer.ok else None)
    for name in WITH_PICTURE:
        open_template(fresh, name)
        fresh.shoot(f"fresh_{name}_{look.look()}")
        assert complaints(fresh) == []
        assert not fresh.page.get_by_text("Media input missing").count()
    for name in NAMES:
        thumbnail = f"/workflow_templates/flux-hotswap/{name}.jpg"
        assert any(thumbnail in url for url in served), "the template's thumbnail"
    assert fresh.errors == []
    fresh.close()


@newest_looks
@pytest.mark.parametrize("name", ["text_to_image", "inpaint"])
def test_a_template_is_an_app(laptop: Editor, name: str) -> None:
    page = laptop.page
    laptop.load(shipped(f"{name}.json"))
    laptop.wait_for_line("bf16: image input" if name in WITH_PICTURE else "4096 tokens")
    laptop.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for()
    if page.get_by_text("Skip", exact=True).count():  # an offer to show how apps work
        page.get_by_text("Skip", exact=True).first.click()
    labels = page.locator("[data-testid=builder-widget-label] >> visible=true")
    fields = [field.name for field in FIELDS]
    if name == "inpaint":
        fields.remove("mask")  # it is painted on the picture
    page.wait_for_timeout(500)
    assert labels.all_inner_texts() == [f for f in fields if f not in ("width", "height")]
    laptop.shoot(f"app_{name}_{laptop.look()}")
    if name == "text_to_image":
        laptop.set_widgets(INPUTS, **SMALL, disable_safety_checker=True, seed=77)
        labels.nth(len(fields) - 1).wait_for()
        assert labels.all_inner_texts() == fields
        page.get_by_test_id("linear-run-button").get_by_text("Run", exact=True).click()
        drawn = page.locator("img[src*='flux-hotswap_'] >> visible=true")
        drawn.first.wait_for(timeout=90_000)
        page.wait_for_timeout(500)
        assert len({image.get_attribute("src") for image in drawn.all()}) == 1
        laptop.shoot(f"app_drawn_{laptop.look()}")
    laptop.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for(state="hidden")


@every_look
def test_the_blueprint_is_found_dropped_and_run(laptop: Editor) -> None:
    laptop.add(INPUTS, (0, 0))
    laptop.add("FluxHotswapSave", (1000, 0))
    laptop.show(scale=0.7)
    for _ in range(5):  # the editor fetches blueprints after it has opened
        drop_found(laptop, "replicate lora")
        if laptop.page.evaluate("() => window.app.graph.nodes.length") == 3:
            break
    assert laptop.page.evaluate("() => window.app.graph.nodes[2].title") == BLUEPRINT
    laptop.connect(0, "request", 2, "request")
    laptop.connect(2, "images", 1, "images")
    laptop.connect(0, "request", 1, "request")
    laptop.set_widgets(INPUTS, **SMALL, disable_safety_checker=True, seed=78)
    laptop.wait_for_line("256 × 256")
    name, _ = laptop.draw()
    laptop.wait_for_line(name)
    laptop.shoot(f"blueprint_{laptop.look()}")


def drop_found(editor: Editor, words: str) -> None:
    """Search for a node and drop the first that is found on the canvas."""
    page = editor.page
    page.mouse.dblclick(640, 820)
    page.wait_for_timeout(1000)
    page.keyboard.type(words, delay=20)
    page.wait_for_timeout(1200)
    editor.shoot(f"search_{editor.look()}")
    page.keyboard.press("Enter")
    page.wait_for_timeout(800)
    page.mouse.click(640, 600)
    page.wait_for_timeout(500)
    for _ in range(2):
        page.keyboard.press("Escape")
