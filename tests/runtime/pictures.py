"""Draw the pictures that the pack ships: thumbnails of workflows, and the nodes of the help pages.

`python3 dev.py pictures` does it. The thumbnails are drawings; with `--draw` the models draw them:
the real ones if `COMFYUI_DIR` names a ComfyUI that has them, else the small FLUX.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from browser.editor import INPUTS, Editor, shipped
from fetch.servers import Server
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Page, sync_playwright

from flux_hotswap.prediction.fill import fill_prompt
from flux_hotswap.tools.recipes import EXAMPLE_PROMPT

from .browser import ARGUMENTS, find_browser
from .client import Client
from .comfyui import find_comfyui
from .environment import ROOT, SetupError
from .frontend import find_newest
from .models import choose_models
from .server import ComfyServer
from .session import Comfy

THUMBNAILS = ROOT / "workflows"
NODES = ROOT / "js" / "docs" / "images"
SIDE = 512
QUALITY = 82
SAVE = "FluxHotswapSave"
FIELDS = "FluxHotswapFields"
"""The one node of ours that no workflow has."""

AROUND = 70
"""Pixels of the graph around a node that its picture shows, for the wires."""

STEPS = 20
ASK: dict[str, Any] = {
    "prompt": EXAMPLE_PROMPT,
    "megapixels": "0.25",
    "num_inference_steps": STEPS,
    "seed": 42,
    "disable_safety_checker": True,
    "output_format": "png",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw everything anew."""
    parser = argparse.ArgumentParser(prog="dev.py pictures", description=main.__doc__)
    parser.add_argument("--draw", action="store_true", help="let the models draw the thumbnails")
    draw = parser.parse_args(argv).draw
    comfyui = find_comfyui()
    choice = choose_models(comfyui, "dev")
    given = dict(choice.server)
    arguments = (*given.pop("arguments", ()), "--front-end-root", str(find_newest()))
    with ComfyServer(comfyui, arguments=arguments, **given) as server:
        client = Client(server.url)
        client.upload("example.png", png(holed(scene())))
        if draw:
            sys.stderr.write(f"{choice.report}\n")
        for name, make in (MODEL_DRAWN if draw else HAND_DRAWN).items():
            path = THUMBNAILS / f"{name}.jpg"
            make(client).convert("RGB").save(path, quality=QUALITY, optimize=True)
            sys.stderr.write(f"{path.relative_to(ROOT)}\n")
        shoot_nodes(server, client)
    return 0


# --- thumbnails, by the models ---


def text_to_image(client: Client) -> Image.Image:
    """One picture."""
    return run(client, "text_to_image")[0]


def image_to_image(client: Client) -> Image.Image:
    """What was given on the left, what became of it on the right."""
    after = run(client, "image_to_image", prompt_strength=0.6)[0]
    return beside(scene(), after)


def inpaint(client: Client) -> Image.Image:
    """The picture with its hole on the left, the filled one on the right."""
    before = Image.new("RGBA", (SIDE, SIDE), "white")
    before.alpha_composite(holed(scene()))
    return beside(before, run(client, "inpaint", prompt_strength=0.9)[0])


def every_field(client: Client) -> Image.Image:
    """Four pictures of one request."""
    sheet = Image.new("RGB", (SIDE, SIDE))
    for index, picture in enumerate(run(client, "flux_lora_schema", num_outputs=4)):
        half = SIDE // 2
        sheet.paste(picture.resize((half, half)), (index % 2 * half, index // 2 * half))
    return sheet


MODEL_DRAWN = {
    "text_to_image": text_to_image,
    "image_to_image": image_to_image,
    "inpaint": inpaint,
    "flux_lora_schema": every_field,
}


def run(client: Client, name: str, **fields: Any) -> list[Image.Image]:
    """The pictures of a shipped workflow."""
    prompt = fill_prompt(shipped(f"api/{name}.json"), ASK | fields)
    shown = client.run(prompt).images()
    return [Image.open(io.BytesIO(client.view(entry))).convert("RGB") for entry in shown]


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """The left half of one picture and the right half of another."""
    both = right.resize((SIDE, SIDE)).convert("RGB")
    both.paste(left.convert("RGB").resize((SIDE, SIDE)).crop((0, 0, SIDE // 2, SIDE)), (0, 0))
    ImageDraw.Draw(both).line([(SIDE // 2, 0), (SIDE // 2, SIDE)], fill="white", width=3)
    return both


# --- thumbnails, by hand ---

DUSK = ((60, 70, 140), (250, 150, 140), (255, 214, 140), (38, 70, 110))
NIGHT = ((8, 12, 40), (44, 54, 110), (236, 240, 250), (14, 30, 58))
DAY = ((90, 160, 230), (214, 236, 250), (255, 240, 170), (40, 120, 160))
DAWN = ((120, 80, 130), (255, 190, 150), (255, 236, 200), (80, 90, 130))
"""Colours of a scene: the sky above and below, the sun, the sea."""


def scene(colours: tuple[tuple[int, int, int], ...] = DUSK, *, sun: bool = True) -> Image.Image:
    """A lighthouse by the sea."""
    above, below, light, sea = colours
    picture = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(picture)
    for y in range(SIDE):
        mix = tuple(round(a + (b - a) * y / 380) for a, b in zip(above, below, strict=True))
        pen.line([(0, y), (SIDE, y)], fill=mix)
    if sun:
        pen.ellipse((330, 180, 430, 280), fill=light)
    pen.rectangle((0, 360, SIDE, SIDE), fill=sea)
    for y in range(372, SIDE, 22):
        wave = tuple(min(part + 34, 255) for part in sea)
        pen.line([(0, y), (SIDE, y - 6)], fill=wave, width=3)
    pen.polygon([(0, SIDE), (0, 330), (150, 300), (270, 380), (330, SIDE)], fill=(48, 44, 52))
    pen.polygon([(120, 310), (134, 130), (176, 130), (190, 310)], fill=(238, 232, 222))
    for y in (170, 230, 290):
        pen.rectangle((124, y, 186, y + 24), fill=(190, 60, 50))
    pen.rectangle((130, 100, 180, 130), fill=(255, 226, 120))
    pen.polygon([(122, 100), (155, 66), (188, 100)], fill=(120, 36, 36))
    return picture


def sketch() -> Image.Image:
    """The lines of the scene only."""
    table = [255 - min(value * 4, 215) for value in range(256)]
    lines = scene().convert("L").filter(ImageFilter.FIND_EDGES).point(table)
    lines.paste(255, (0, 0, SIDE, 3))
    return lines.convert("RGB")


def drawn_hole(client: Client) -> Image.Image:
    """A hole on the left; a moon in it on the right."""
    before = Image.new("RGBA", (SIDE, SIDE), "white")
    before.alpha_composite(holed(scene(DAY)).transform((SIDE, SIDE), Image.Transform.AFFINE, SHIFT))
    after = scene(DAY, sun=False)
    pen = ImageDraw.Draw(after)
    for x, y, size in ((300, 200, 60), (350, 170, 80), (410, 200, 66), (360, 214, 70)):
        pen.ellipse((x, y, x + size * 1.6, y + size), fill=(250, 252, 255))
    return beside(before, after)


def drawn_sheet(client: Client) -> Image.Image:
    """The scene at four times of the day."""
    sheet, half = Image.new("RGB", (SIDE, SIDE)), SIDE // 2
    for index, colours in enumerate((DAWN, DAY, DUSK, NIGHT)):
        place = (index % 2 * half, index // 2 * half)
        sheet.paste(scene(colours).resize((half, half)), place)
    return sheet


HAND_DRAWN: dict[str, Callable[[Client], Image.Image]] = {
    "text_to_image": lambda _: scene(),
    "image_to_image": lambda _: beside(sketch(), scene(NIGHT)),
    "inpaint": drawn_hole,
    "flux_lora_schema": drawn_sheet,
}
SHIFT = (1, 0, 215, 0, 1, 0)
"""Brings the hole of the scene into the left half."""


def holed(picture: Image.Image) -> Image.Image:
    """The same picture with a hole where the sun stands: what LoadImage takes for the mask."""
    alpha = Image.new("L", picture.size, 255)
    ImageDraw.Draw(alpha).ellipse((290, 140, 470, 320), fill=0)
    return Image.merge("RGBA", (*picture.split(), alpha))


def png(picture: Image.Image) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# --- nodes ---


def shoot_nodes(server: ComfyServer, client: Client) -> None:
    """Take a picture of each of our nodes in the graph of all fields, and those of the README."""
    NODES.mkdir(exist_ok=True)
    path = find_browser()
    if path is None:
        raise SetupError("the pictures of the nodes need a Chromium: install chromium.")
    files = Server()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        comfy = Comfy(server, client, Path(), files)
        editor = Editor.open(browser, comfy, **{"Comfy.VueNodes.Enabled": True})
        editor.load(shipped("flux_lora_schema.json"))
        editor.set_widgets(INPUTS, lora="fofr/flux-pixar-cars", megapixels="0.25")
        editor.wait_for_line("Replicate: fofr/flux-pixar-cars")
        editor.page.set_viewport_size({"width": 1400, "height": 1800})
        inside = set(editor.node_types()) - {INPUTS, SAVE}
        for kind in (INPUTS, SAVE):
            shoot_node(editor, kind, NODES / f"{kind}.webp")
        editor.enter()
        for kind in sorted(kind for kind in inside if kind.startswith("FluxHotswap")):
            shoot_node(editor, kind, NODES / f"{kind}.webp")
        editor.clear()
        editor.add(INPUTS, (0, 0))
        editor.add(FIELDS, (500, 0))
        editor.connect(0, "request", 1, "request")
        shoot_node(editor, FIELDS, NODES / f"{FIELDS}.webp")
        shoot_readme(editor)
        browser.close()
    files.close()


README: dict[str, Any] = {
    "prompt": "a large yellow star on a dotted blue ground",
    "megapixels": "0.25",
    "num_inference_steps": STEPS,
    "seed": 7,
    "control_after_generate": "fixed",
    "disable_safety_checker": True,
}
"""What the README's pictures show: the small FLUX knows it."""


def shoot_readme(editor: Editor) -> None:
    """Take the README's pictures: a template that has run, the same as an app, and the form."""
    page, folder = editor.page, ROOT / "docs" / "images"
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.evaluate(
        "graph => window.app.loadGraphData(graph, true, true, 'text_to_image')",
        shipped("text_to_image.json"),
    )
    editor.set_widgets(INPUTS, **README)
    editor.wait_for_line("512 × 512")
    editor.draw()
    editor.wait_for_line("Seed 7")
    editor.show(scale=0.8, left=140, top=150)
    save(page, folder / "editor.webp", (110, 95, 930, 800))
    shoot_app(editor, folder / "app.webp")
    fields = {"aspect_ratio": "custom", "width": 1216, "height": 704, "model": "schnell"}
    editor.set_widgets(INPUTS, **fields, lora="fofr/flux-pixar-cars")
    editor.wait_for_line("bf16: custom size")
    editor.wait_for_line("Replicate: fofr/flux-pixar-cars")
    editor.show(scale=1, left=160, top=-100)
    save(page, folder / "form.webp", (110, 120, 460, 830))


def shoot_app(editor: Editor, path: Path) -> None:
    """Take a picture of the open workflow as an app, with what it has drawn."""
    page = editor.page
    page.set_viewport_size({"width": 1440, "height": 900})
    editor.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for()
    if page.get_by_text("Skip", exact=True).count():  # an offer to show how apps work
        page.get_by_text("Skip", exact=True).first.click()
    editor.set_widgets(INPUTS, seed=8)
    page.get_by_test_id("linear-run-button").get_by_text("Run", exact=True).click()
    page.locator("img[src*='flux-hotswap_'] >> visible=true").first.wait_for(timeout=90_000)
    # The core of 0.3.75 does not tell the newest editor that this run has ended.
    page.add_style_tag(content="[data-testid=linear-cancel-run] { visibility: hidden }")
    save(page, path, (0, 0, 1440, 900))
    editor.command("Comfy.ToggleLinear")
    page.get_by_test_id("linear-run-button").wait_for(state="hidden")
    page.set_viewport_size({"width": 1440, "height": 1000})


def save(page: Page, path: Path, box: tuple[int, int, int, int]) -> None:
    """Take a picture of a part of the page: left, top, width and height."""
    page.mouse.move(box[0] + box[2] - 10, box[1] + box[3] - 10)
    page.wait_for_timeout(4000)  # until what the editor says about the run has gone
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True))
    data = page.screenshot(clip=clip)  # pyright: ignore[reportArgumentType]
    Image.open(io.BytesIO(data)).convert("RGB").save(path, quality=QUALITY, method=6)
    sys.stderr.write(f"{path.relative_to(ROOT)}\n")


def shoot_node(editor: Editor, kind: str, path: Path) -> None:
    """Take a picture of the first node of a kind."""
    left, top, width, height = editor.page.evaluate(
        """async ([kind, around]) => {
            const {canvas} = window.app
            const node = nodeOf(kind)
            const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`)
            node.setSize([node.size[0], node.computeSize()[1]])
            canvas.ds.scale = 1
            canvas.ds.offset = [300 - node.pos[0], 300 - node.pos[1]]
            canvas.setDirty(true, true)
            await new Promise(done => setTimeout(done, 500))
            const box = canvas.canvas.getBoundingClientRect()
            return [box.left + 300 - around, box.top + 260 - around / 2,
                node.size[0] + 2 * around, drawn.offsetHeight + 10 + around]
        }""",
        [kind, AROUND],
    )
    editor.page.mouse.move(1380, 1780)
    editor.page.wait_for_timeout(1200)
    clip = {"x": left, "y": top, "width": width, "height": height}
    data = editor.page.screenshot(clip=clip)  # pyright: ignore[reportArgumentType]
    Image.open(io.BytesIO(data)).convert("RGB").save(path, quality=70, method=6)
    sys.stderr.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    sys.exit(main())
