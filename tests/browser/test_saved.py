"""What has been drawn: the Save node's links, and its files dropped on the editor."""

from __future__ import annotations

from pathlib import Path

from browser.editor import INPUTS, SMALL, Editor, picture, shipped

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


def test_a_jpg_on_a_node_that_takes_pictures_is_the_nodes(editor: Editor, tmp_path: Path) -> None:
    editor.load(shipped("text_to_image.json"))
    editor.set_widgets(INPUTS, **SMALL, seed=12, disable_safety_checker=True, output_format="jpg")
    name, data = editor.draw()
    editor.clear()
    editor.add("LoadImage", (100, 150))
    editor.show(scale=1)
    editor.page.wait_for_timeout(300)
    left, top, right, _ = editor.boxes()["Load Image"]
    editor.drop(on_disk(tmp_path, name, data), ((left + right) / 2, top + 12))
    editor.wait("name => window.app.graph.nodes[0]?.widgets[0].value === name", name)
    assert editor.node_types() == ["LoadImage"]
