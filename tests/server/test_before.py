"""The input images that are kept beside a result, for the editor to compare with."""

from __future__ import annotations

import json
import os

from PIL import Image
from runtime.environment import ROOT
from runtime.session import Comfy

from flux_hotswap.prediction.fill import fill_prompt


def test_only_so_many_input_images_are_kept_to_compare_with(comfy: Comfy) -> None:
    temp = comfy.server.base / "temp"
    temp.mkdir(exist_ok=True)
    for number in range(70):
        old = temp / f"flux-hotswap_before_{number:016}.jpg"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    Image.new("RGB", (64, 64), "teal").save(comfy.server.input_dir / "teal.png")
    request = {"prompt": "x", "image": "teal.png", "num_inference_steps": 1}
    path = ROOT / "workflows" / "api" / "flux_lora_schema.json"
    comfy.run(fill_prompt(json.loads(path.read_text(encoding="utf-8")), request))
    kept = sorted(temp.glob("flux-hotswap_before_*.jpg"), key=lambda each: each.stat().st_mtime)
    assert len(kept) == 64
    assert kept[-1].stat().st_size > 0
