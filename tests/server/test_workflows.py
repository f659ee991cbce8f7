"""The shipped workflows, run as they are through a real ComfyUI, and the requests they serve."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtime.client import ExecutionError
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt, fill_prompt
from flux_hotswap.tools.export import as_opened, flat, to_prompt
from flux_hotswap.tools.nodes_info import read_nodes
from flux_hotswap.tools.recipes import EXAMPLE_IMAGE, RECIPES

FOLDER = Path(__file__).parent.parent.parent / "workflows"
NAMES = [recipe.name for recipe in RECIPES]
CUSTOM = {"aspect_ratio": "custom", "width": 256, "height": 256}
FAST = {"prompt": "a cat", "num_inference_steps": 1, "seed": 7}


def load(name: str) -> Prompt:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    across = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    down = np.linspace(255, 0, height, dtype=np.uint8)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([across, down, np.full_like(across, 90)], -1))


@pytest.fixture(scope="module", autouse=True)
def example_picture(comfy: Comfy) -> None:
    """A picture under the name of the one that ComfyUI brings in its input folder."""
    comfy.client.upload(EXAMPLE_IMAGE, png(gradient(256, 256)))


# --- as shipped ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_editors_file_is_the_prompt(name: str) -> None:
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert flat(to_prompt(workflow, read_nodes())) == as_opened(load(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs_as_shipped(comfy: Comfy, name: str) -> None:
    """Not one value is changed: the defaults, the real files' names, 28 steps."""
    result = comfy.run(load(name))
    record = result.shown("flux_hotswap")[0]
    (entry,) = result.images()
    with Image.open(BytesIO(comfy.client.view(entry))) as picture:
        assert picture.format == "WEBP"
        assert picture.size == (record["width"], record["height"])
    assert record["seed"] == 42
    assert record["steps"] == (28 if record["mode"] == "txt2img" else 23)


@pytest.mark.parametrize("name", NAMES)
def test_real_files_are_named_with_their_links(name: str) -> None:
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    nodes = workflow["definitions"]["subgraphs"][0]["nodes"]
    models = [model for node in nodes for model in node["properties"].get("models", [])]
    assert {model["name"] for model in models} == {
        "flux1-dev.safetensors",
        "flux1-schnell.safetensors",
        "ae.safetensors",
        "clip_l.safetensors",
        "t5xxl_fp16.safetensors",
    }
    assert all(model["url"].endswith("/" + model["name"]) for model in models)
    widgets = [str(value) for node in nodes for value in node["widgets_values"]]
    assert all(model["name"] in widgets for model in models)


# --- requests -----------------------------------------------------------------------------------


def run(comfy: Comfy, **fields: Any) -> tuple[dict[str, Any], list[Image.Image]]:
    """Run a request through the graph for every request; its record and pictures."""
    result = comfy.run(fill_prompt(load("flux_lora_schema"), FAST | fields))
    files = [BytesIO(comfy.client.view(entry)) for entry in result.images()]
    pictures: list[Image.Image] = [Image.open(file) for file in files]
    return result.shown("flux_hotswap")[0], pictures


@pytest.mark.parametrize(
    ("output_format", "quality", "kind"),
    [("webp", 80, "WEBP"), ("jpg", 0, "JPEG"), ("jpg", 100, "JPEG"), ("png", 50, "PNG")],
)
def test_output_formats(comfy: Comfy, output_format: str, quality: int, kind: str) -> None:
    _, (picture,) = run(comfy, **CUSTOM, output_format=output_format, output_quality=quality)
    assert picture.format == kind


def test_a_batch_comes_in_order(comfy: Comfy) -> None:
    """Picture i of a batch is picture i of a larger batch."""
    fields = CUSTOM | {"output_format": "png"}
    _, two = run(comfy, **fields, num_outputs=2)
    _, four = run(comfy, **fields, num_outputs=4)
    assert (len(two), len(four)) == (2, 4)
    for small, large in zip(two, four[:2], strict=True):
        difference = np.asarray(small).astype(int) - np.asarray(large).astype(int)
        assert np.abs(difference).max() <= 1  # a value on the edge between two steps of 1/255
    assert np.abs(np.asarray(four[2]).astype(int) - np.asarray(four[3]).astype(int)).max() > 8


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def animation() -> bytes:
    frames = [Image.new("RGB", (48, 32), colour) for colour in ("red", "blue")]
    buffer = BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PICTURES: dict[str, tuple[bytes, tuple[int, int]]] = {
    "rgb": (png(gradient(100, 50)), (112, 64)),
    "rgba": (png(gradient(64, 64).convert("RGBA")), (64, 64)),
    "grey": (png(gradient(64, 48).convert("L")), (64, 48)),
    "16 bit": (png(Image.fromarray(np.full((32, 48), 40000, np.uint16))), (48, 32)),
    "palette": (png(gradient(64, 48).convert("P")), (64, 48)),
    "turned": (turned(gradient(80, 48), 6), (48, 80)),
    "1x1": (png(gradient(1, 1)), (16, 16)),
    "8000x50": (png(gradient(8000, 50)), (1440, 16)),
    "animated": (animation(), (48, 32)),
}


@pytest.mark.parametrize(("data", "size"), PICTURES.values(), ids=PICTURES)
def test_input_pictures_of_all_kinds(comfy: Comfy, data: bytes, size: tuple[int, int]) -> None:
    name = comfy.client.upload("any.bin", data)
    record, (picture,) = run(comfy, image=name, prompt_strength=0.5, num_inference_steps=2)
    assert (record["width"], record["height"]) == picture.size == size
    assert record["mode"] == "img2img"


def test_a_data_uri_is_a_picture(comfy: Comfy) -> None:
    import base64

    uri = "data:image/png;base64," + base64.b64encode(png(gradient(64, 32))).decode()
    record, (picture,) = run(comfy, image=uri, mask=uri)
    assert record["mode"] == "inpaint"
    assert picture.size == (64, 32)


def test_a_link_is_a_picture(comfy: Comfy) -> None:
    link = comfy.files.file("/picture.png", png(gradient(64, 32)))
    record, (picture,) = run(comfy, image=link, prompt_strength=0.5)
    assert record["mode"] == "img2img"
    assert picture.size == (64, 32)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("http://127.0.0.1:9/a.png", "127.0.0.1"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("https://localhost/a.png", "localhost"),
    ],
)
def test_a_link_into_this_network_is_refused(comfy: Comfy, link: str, message: str) -> None:
    comfy.expect_traceback("RefusedError")
    comfy.expect_traceback("ImageError")
    with pytest.raises(ExecutionError, match=f"image: .*{message}"):
        run(comfy, image=link)


def test_a_link_to_no_picture_says_so(comfy: Comfy) -> None:
    link = comfy.files.file("/page.png", b"<html>log in</html>")
    comfy.expect_traceback("image: not a picture")
    comfy.expect_traceback("UnidentifiedImageError")
    with pytest.raises(ExecutionError, match="image: not a picture"):
        run(comfy, image=link)


@pytest.mark.parametrize(
    ("mask", "warning"),
    [
        (Image.new("L", (64, 64), 0), "all black"),
        (Image.new("L", (64, 64), 127), "all black"),
        (Image.new("L", (64, 64), 255), None),
        (Image.new("L", (10, 10), 128), None),
    ],
    ids=["black", "just black", "white", "just white, another size"],
)
def test_masks(comfy: Comfy, mask: Image.Image, warning: str | None) -> None:
    picture = comfy.client.upload("masked.png", png(gradient(64, 64)))
    name = comfy.client.upload("mask.png", png(mask))
    record, _ = run(comfy, image=picture, mask=name, prompt_strength=1, num_inference_steps=2)
    assert record["mode"] == "inpaint"
    found = [text for text in record["warnings"] if text.startswith("mask:")]
    assert (warning in found[0]) if warning else found == []


def test_a_mask_between_the_grid_points_warns(comfy: Comfy) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (9, 9, 15, 15))
    picture = comfy.client.upload("masked.png", png(gradient(64, 64)))
    record, _ = run(comfy, image=picture, mask=comfy.client.upload("mask.png", png(mask)))
    assert any("8 pixel grid" in text for text in record["warnings"])


def test_a_connected_picture_wins_over_a_named_one(comfy: Comfy) -> None:
    comfy.client.upload("named.png", png(gradient(32, 32)))
    prompt = fill_prompt(load("image_to_image"), FAST | {"num_inference_steps": 2})
    loader = next(node for node in prompt.values() if node["class_type"] == "LoadImage")
    loader["inputs"]["image"] = comfy.client.upload("connected.png", png(gradient(64, 48)))
    inputs = next(node for node in prompt.values() if node["class_type"] == "FluxHotswapInputs")
    inputs["inputs"]["image"] = "named.png"
    record = comfy.run(prompt).shown("flux_hotswap")[0]
    assert (record["width"], record["height"]) == (64, 48)
    assert any("the connected one is used" in text for text in record["warnings"])


def test_no_mask_drawn_in_the_editor_is_image_to_image(comfy: Comfy) -> None:
    """LoadImage gives a black 64x64 mask for a picture without one."""
    prompt = fill_prompt(load("inpaint"), FAST | {"num_inference_steps": 2})
    loader = next(node for node in prompt.values() if node["class_type"] == "LoadImage")
    loader["inputs"]["image"] = comfy.client.upload("plain.png", png(gradient(96, 48)))
    record = comfy.run(prompt).shown("flux_hotswap")[0]
    assert record["mode"] == "img2img"
