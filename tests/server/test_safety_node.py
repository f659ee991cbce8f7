"""The safety node in a real ComfyUI: what becomes of flagged pictures, and of missing weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mini_flux import safety
from PIL import Image
from runtime.client import ExecutionError, Result
from runtime.session import Comfy
from safetensors.torch import save_file

from flux_hotswap.prediction.fill import Prompt

COMPVIS = "compvis-safety-checker.safetensors"
FALCON = "falconsai-nsfw-image-detection.safetensors"


def safety_prompt(picture: str, **widgets: Any) -> Prompt:
    """Load a picture, check it, save what passes, show the verdicts."""
    load = {"class_type": "LoadImage", "inputs": {"image": picture}}
    check = {"class_type": "FluxHotswapSafety", "inputs": {"images": ["1", 0], **widgets}}
    wanted = {"images": ["2", 0], "output_format": "png"}
    save = {"class_type": "FluxHotswapSave", "inputs": wanted}
    show = {"class_type": "PreviewAny", "inputs": {"source": ["2", 3]}}
    return {"1": load, "2": check, "3": save, "4": show}


@pytest.fixture
def picture(comfy: Comfy) -> str:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return comfy.client.upload("checked.png", buffer.getvalue())


@pytest.fixture
def weights(comfy: Comfy) -> Iterator[Path]:
    """The folder of the weights, for changes that last one test."""
    folder = comfy.server.models_dir / "safety_checker"
    kept = {name: (folder / name).read_bytes() for name in (COMPVIS, FALCON)}
    yield folder
    for name, data in kept.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)


def flag_everything(folder: Path, second: str) -> None:
    """Make the first network flag every picture and the second one answer the same to all."""
    first, judge = safety.compvis(), safety.falcon()
    first["concept_embeds_weights"].fill_(-2.0)
    judge["classifier.weight"].zero_()
    judge["classifier.bias"].copy_(judge["classifier.bias"].new_tensor([0.0, 1.0]))
    if second == "normal":
        judge["classifier.bias"].neg_()
    for name, state in ((COMPVIS, first), (FALCON, judge)):
        (folder / name).unlink()
        save_file(state, folder / name)


def pictures(comfy: Comfy, result: Result) -> list[Image.Image]:
    return [Image.open(BytesIO(comfy.client.view(entry))) for entry in result.images()]


def report(result: Result) -> str:
    (text,) = result.shown("text")
    return text


def checked(image: Image.Image) -> dict[str, Any]:
    """What the record in the picture says of the check."""
    return json.loads(str(image.info["flux_hotswap"]))["safety"]


def test_safe_pictures_pass_unchanged(comfy: Comfy, picture: str) -> None:
    result = comfy.run(safety_prompt(picture))
    (passed,) = pictures(comfy, result)
    original = Image.open(comfy.server.input_dir / picture)
    assert (np.asarray(passed) == np.asarray(original)).all()
    assert "1 of 1 pictures are safe" in report(result)
    assert checked(passed) == {"checker": "hosted", "flags": [False]}


def test_disabled_says_so(comfy: Comfy, picture: str, weights: Path) -> None:
    (weights / COMPVIS).unlink()
    result = comfy.run(safety_prompt(picture, disable_safety_checker=True))
    (passed,) = pictures(comfy, result)
    assert "passed unchecked" in report(result)
    assert checked(passed) == {"checker": "off", "flags": [False]}


def test_none_left_is_an_error(comfy: Comfy, picture: str, weights: Path) -> None:
    flag_everything(weights, "nsfw")
    comfy.expect_traceback("judged unsafe")
    with pytest.raises(ExecutionError, match="judged unsafe and left out"):
        comfy.run(safety_prompt(picture))


def test_the_second_network_may_overrule(comfy: Comfy, picture: str, weights: Path) -> None:
    flag_everything(weights, "normal")
    result = comfy.run(safety_prompt(picture))
    (passed,) = pictures(comfy, result)
    assert "second check: normal" in report(result)
    assert checked(passed) == {"checker": "hosted", "flags": [False]}


@pytest.mark.parametrize("action", ["black", "blur", "flag"])
def test_other_actions(comfy: Comfy, picture: str, weights: Path, action: str) -> None:
    flag_everything(weights, "nsfw")
    result = comfy.run(safety_prompt(picture, on_unsafe=action))
    (passed,) = pictures(comfy, result)
    pixels, original = np.asarray(passed), Image.open(comfy.server.input_dir / picture)
    assert "0 of 1 pictures are safe" in report(result)
    assert checked(passed) == {"checker": "hosted", "flags": [True]}
    assert (pixels == 0).all() == (action == "black")
    assert (pixels == np.asarray(original)).all() == (action == "flag")


def test_missing_weights_pass_nothing(comfy: Comfy, picture: str, weights: Path) -> None:
    """The hub answers 404: the message says what to put where."""
    (weights / FALCON).unlink()
    comfy.expect_traceback(FALCON)
    comfy.expect_traceback("Falconsai/nsfw_image_detection/resolve")
    with pytest.raises(ExecutionError) as failed:
        comfy.run(safety_prompt(picture))
    message = str(failed.value)
    assert FALCON in message
    assert "safety_checker" in message
    assert "https://huggingface.co/Falconsai/nsfw_image_detection" in message
    assert "No picture passes unchecked" in message
    assert comfy.files.asked("/Falconsai/nsfw_image_detection/resolve/")


def test_other_bytes_under_the_name_pass_nothing(comfy: Comfy, picture: str, weights: Path) -> None:
    (weights / COMPVIS).unlink()
    (weights / COMPVIS).write_bytes(b"x" * (2 << 20))  # too large to be a small one
    comfy.expect_traceback(COMPVIS)
    with pytest.raises(ExecutionError, match="is not the right one"):
        comfy.run(safety_prompt(picture))
