"""The demo command: what it prints, and the LoRA that it fetches from this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runtime import demo
from runtime.comfyui import find_comfyui
from runtime.models import choose_models
from safetensors.torch import load

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
    assert "sha256" in lora["file"]
    count = len(load(data))
    assert lora["keys"].startswith(f"{count} of {count} matched")
    assert lora["strength"] == "1.125 (0.75 times 1.5 on the fp8 route)"
    size = f"{len(data) / 1e6:.1f}"
    assert f"fetched {size} of {size} MB" in said
    (picture,) = map(Path, answer["output"])
    assert picture.parent == tmp_path
    with Image.open(picture) as image:
        assert image.size == (answer["width"], answer["height"]) == (512, 512)


def test_a_request_of_the_user_gets_no_lora(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"prompt": "a fox", "megapixels": "0.25", "num_inference_steps": 1}')
    answer, said = drawn(capsys, "--input", str(request), "--keep", str(tmp_path / "kept"))
    assert answer["loras"] == []
    assert len(answer["output"]) == 1
    assert "127.0.0.1" not in said


def test_a_report_is_read_line_by_line() -> None:
    assert demo._lora("no LoRA: source is empty") == {}
    assert demo._lora("source: a/b\nkeys: 2 of 2 matched\nwarning: old: very") == {
        "source": "a/b",
        "keys": "2 of 2 matched",
        "warning": "old: very",
    }
