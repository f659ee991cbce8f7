"""The form's pictures by themselves: which of two is used, and when one is read again.

Nothing is drawn: the form's own image and mask are saved.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from runtime.client import PromptRejectedError, Result
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt
from flux_hotswap.tools.nodes_info import read_nodes

FORM = read_nodes()["FluxHotswapInputs"]
SMALL: dict[str, Any] = {"prompt": "x", "disable_safety_checker": True, "output_format": "png"}
SIZE = (96, 64)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def form(**fields: Any) -> Prompt:
    """A form whose picture is saved."""
    image = ["form", FORM.output("image")]
    return {
        "form": node("FluxHotswapInputs", **SMALL, seed=5, **fields),
        "save": node("FluxHotswapSave", images=image, request=["form", 0]),
    }


def with_mask(prompt: Prompt) -> Prompt:
    """The same whose mask is saved too, for `mask_of`."""
    mask = ["form", FORM.output("mask")]
    return prompt | {"mask": node("TestSaveTensor", filename="mask", mask=mask)}


def mask_of(comfy: Comfy) -> set[float]:
    return set(comfy.saved("mask")["mask"].flatten().tolist())


def picture(colour: str | int, mode: str = "RGB", size: tuple[int, int] = SIZE) -> bytes:
    buffer = BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def plan(result: Result) -> dict[str, Any]:
    (found,) = result.shown("flux_hotswap_plan")
    return found


def colour(comfy: Comfy, result: Result) -> tuple[int, ...]:
    (entry,) = result.images()
    with Image.open(BytesIO(comfy.client.view(entry))) as saved:
        return tuple(saved.convert("RGB").tobytes()[:3])


def wired(comfy: Comfy, **fields: Any) -> Prompt:
    """A form with both outputs of Load Image connected; the picture has no alpha."""
    comfy.client.upload("plain.png", picture("teal"))
    wires = {"input_image": ["load", 0], "input_mask": ["load", 1]}
    return form(**wires, **fields) | {"load": node("LoadImage", image="plain.png")}


# --- which mask is used ---


def test_the_mask_that_load_image_gives_for_none_hides_no_named_one(comfy: Comfy) -> None:
    comfy.client.upload("white.png", picture(255, "L"))
    result = comfy.run(with_mask(wired(comfy, mask="white.png")))
    assert plan(result)["mode"] == "inpaint"
    assert plan(result)["warnings"] == []
    assert mask_of(comfy) == {1}
    (request,) = result.shown("flux_hotswap_request")
    assert request["fields"]["mask"] == "white.png"
    assert request["left_out"] == ["image"]


def test_the_mask_that_load_image_gives_for_none_is_none(comfy: Comfy) -> None:
    result = comfy.run(wired(comfy))
    assert (plan(result)["mode"], plan(result)["warnings"]) == ("img2img", [])
    assert result.shown("flux_hotswap_request")[0]["left_out"] == ["image"]


def test_a_connected_mask_wins_over_a_named_one(comfy: Comfy) -> None:
    comfy.client.upload("white.png", picture(255, "L"))
    prompt = with_mask(wired(comfy, mask="white.png"))
    prompt["form"]["inputs"]["input_mask"] = ["solid", 0]
    prompt["solid"] = node("SolidMask", value=0.75, width=SIZE[0], height=SIZE[1])
    result = comfy.run(prompt)
    assert plan(result)["mode"] == "inpaint"
    (warning,) = plan(result)["warnings"]
    assert warning == "mask: the connected one is used, not the one named in the field"
    assert mask_of(comfy) == {0.75}
    assert result.shown("flux_hotswap_request")[0]["left_out"] == ["image", "mask"]


# --- a name that is not used need not be right ---


def test_a_named_picture_that_is_not_used_may_be_gone(comfy: Comfy) -> None:
    """And the form does not run again for that."""
    prompt = wired(comfy, image="gone.png")
    result = comfy.run(prompt)
    assert colour(comfy, result) == (0, 128, 128)
    (warning,) = plan(result)["warnings"]
    assert warning == "image: the connected one is used, not the one named in the field"
    assert comfy.run(prompt).executed_nodes == []


def test_a_named_mask_must_be_there(comfy: Comfy) -> None:
    """Whether the connected one is a mask shows in the run alone."""
    with pytest.raises(PromptRejectedError, match=r"mask: gone\.png is not in"):
        comfy.run(wired(comfy, mask="gone.png"))


# --- when a file is read again ---


@pytest.mark.parametrize("field", ["image", "mask"])
@pytest.mark.parametrize("through", ["the field", "a wire"])
def test_a_file_that_is_another_one_is_read_again(comfy: Comfy, field: str, through: str) -> None:
    name = f"changing-{field}.png"
    fields: dict[str, Any] = {"image": comfy.client.upload("plain.png", picture("teal"))}
    prompt = form(**fields | {field: name if through == "the field" else ["name", 0]})
    if field == "mask":
        prompt = with_mask(prompt)
    prompt["name"] = node("PrimitiveString", value=name)
    comfy.client.upload(name, picture("black"))
    comfy.run(prompt)
    comfy.client.upload(name, picture("white"))
    result = comfy.run(prompt)
    if field == "mask":
        assert mask_of(comfy) == {1}
    else:
        assert colour(comfy, result) == (255, 255, 255)


# --- blanks around a source ---


def as_data(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


FORMS: dict[str, Callable[[Comfy], str]] = {
    "file": lambda comfy: comfy.client.upload("blanks.png", picture("white")),
    "data": lambda _: as_data(picture("white")),
    "link": lambda comfy: comfy.files.file("/blanks.png", picture("white")),
}


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("blanks", [" {}", "{}\n", "\t{} \r\n"], ids=ascii)
def test_blanks_around_a_source_do_not_count(comfy: Comfy, source: str, blanks: str) -> None:
    """What is let in is drawn, and what is in the cache is known again."""
    given = blanks.format(FORMS[source](comfy))
    prompt = with_mask(form(image=given, mask=given))
    result = comfy.run(prompt)
    assert plan(result)["mode"] == "inpaint"
    assert colour(comfy, result) == (255, 255, 255)
    assert comfy.run(prompt).executed_nodes == []


# --- what is kept to compare with ---


def test_the_input_image_that_was_used_last_is_kept(comfy: Comfy) -> None:
    temp = comfy.server.base / "temp"
    temp.mkdir(exist_ok=True)

    def before(shade: str, prompt: str) -> Any:
        name = comfy.client.upload(f"{shade}.png", picture(shade))
        given = form(image=name)
        given["form"]["inputs"]["prompt"] = prompt
        (found,) = comfy.run(given).shown("flux_hotswap_before")
        return temp / found["filename"]

    used = before("olive", "first")
    os.utime(used, (1, 1))
    for number in range(70):
        other = temp / f"flux-hotswap_before_{number:016}.jpg"
        other.write_bytes(b"")
        os.utime(other, (2 + number, 2 + number))
    assert before("olive", "again") == used
    newest = before("navy", "first")
    assert used.is_file()
    assert newest.is_file()
    assert len(list(temp.glob("flux-hotswap_before_*.jpg"))) == 64
