"""The demo command: what it prints, and the LoRA that it fetches from this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runtime import demo
from runtime.comfyui import find_comfyui
from runtime.models import choose_models
from safetensors.torch import load

LORA = "FLUX Hotswap LoRA"
SMALL = not choose_models(find_comfyui(), "dev").real


def drawn(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the demo with `--json`; its answer and what it said meanwhile."""
    assert demo.main(["--json", *arguments]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.skipif(not SMALL, reason="real weights draw without the small FLUX's LoRA")
def test_the_demo_fetches_a_lora(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answer, said = drawn(capsys, "--keep", str(tmp_path))
    (lora,) = answer["loras"]
    name, data = demo.lora_file()
    assert lora["source"].startswith("http://127.0.0.1:")
    assert lora["source"].endswith(f"/{name}")
    assert lora["file"].endswith(".safetensors")
    assert lora["sha256"] == hashlib.sha256(data).hexdigest()
    assert lora["matched"] == lora["keys"] == len(load(data))
    assert lora["strength"] == 1.125  # 0.75 times 1.5 with go_fast
    assert f"running: {LORA}" in said
    assert answer["route"] == "int8 storage"
    assert list(answer) == ["output", "seed", "route", "width", "height", "loras", "seconds"]
    (picture,) = map(Path, answer["output"])
    assert picture.parent == tmp_path
    with Image.open(picture) as image:
        assert image.size == (answer["width"], answer["height"]) == (512, 512)


def test_a_request_of_the_user_is_told_in_lines_and_gets_no_lora(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without `--json`, and with a request in the body of a hosted call."""
    fields = {"prompt": "a fox", "aspect_ratio": "custom", "width": 260, "height": 256, "seed": 9}
    fields |= {"num_inference_steps": 1, "image": None, "lora_weights": None}
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"input": fields}))
    assert demo.main(["--input", str(request), "--keep", str(tmp_path / "kept")]) == 0
    out, err = capsys.readouterr()
    assert "127.0.0.1" not in err
    said = out.splitlines()
    (picture,) = (tmp_path / "kept").iterdir()
    assert said[:3] == ["seed   9", "route  bf16 (custom size)", "size   256x256"]
    assert "note   width and height: 260x256 is rounded to 256x256" in said
    assert said[-1] == f"file   {picture.resolve()}"
    assert not [line for line in said if line.startswith("lora")]


def test_a_picture_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo may be given `{"input": ...}`, fields that are null, and a LoRA by its old name."""
    Image.new("RGB", (64, 64)).save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    fields = {"prompt": "a fox", "image": "in.png", "mask": None, "lora_weights": "a/b"}
    (tmp_path / "request.json").write_text(json.dumps({"input": fields}))
    picture = str(tmp_path / "in.png")
    wanted = {"prompt": "a fox", "image": picture, "lora": "a/b"}
    assert demo.load_request("request.json") == wanted


def test_a_download_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    request = demo.load_request(None)
    prompt = demo.load_workflow(request)
    (node,) = (key for key, entry in prompt.items() if entry["class_type"] == demo.LORA_NODE)
    tell = demo._Progress(prompt)
    tell(node, 0, 0)
    tell(node, 150_000, 400_000)
    tell(node, 400_000, 400_000)
    assert capsys.readouterr().err.splitlines() == [
        f"running: {LORA}",
        f"{LORA}: fetched 0.1 of 0.4 MB",
        f"{LORA}: fetched 0.4 of 0.4 MB",
    ]


@pytest.mark.parametrize("words", [[], ["STKR", "a star"]], ids=["no words", "words"])
def test_a_lora_is_told_in_lines(words: list[str]) -> None:
    lora = {"file": "a.safetensors", "sha256": "0123456789abcdef" * 4, "strength": 1.125}
    lora |= {"matched": 2, "keys": 3, "family": "diffusers", "weights": 1, "trigger_words": words}
    assert demo._about(lora) == [
        "file: a.safetensors, sha256 0123456789ab",
        "keys: 2 of 3 matched (diffusers), 1 weights changed",
        "strength: 1.125",
        *(["trigger words: STKR, a star"] if words else []),
    ]
