"""Draw requests with the small FLUX that has learned to draw, through a real ComfyUI.

with Studio() as studio:
    (picture,) = studio.draw(prompt="a red star on a blue ground", megapixels="0.25")
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flux_hotswap.prediction.fill import fill_prompt, workflow_for

from .client import Client
from .comfyui import ComfyUI, find_comfyui
from .environment import ROOT
from .models import trained_models
from .server import ComfyServer

Picture = NDArray[np.float32]
"""[H,W,3] 0..1"""

DEFAULTS: dict[str, Any] = {
    "megapixels": "0.25",
    "seed": 7,
    "go_fast": False,
    "disable_safety_checker": True,
    "output_format": "png",
}


class Studio:
    """A ComfyUI of its own with the trained small FLUX."""

    def __init__(
        self, comfyui: ComfyUI | None = None, models: Path | None = None, **options: Any
    ) -> None:
        """Nothing runs before the `with`.

        Args:
            comfyui: what to run; the one of the tests if it is not given.
            models: their folder; the trained small FLUX's if it is not given.
            options: of `ComfyServer`.
        """
        self._comfyui, self._models, self._options = comfyui, models, options
        self._stack = ExitStack()

    def __enter__(self) -> Studio:
        base = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        comfyui = self._comfyui or find_comfyui()
        models = self._models or trained_models()
        server = ComfyServer(comfyui, models=models, base=base, **self._options)
        self.server = self._stack.enter_context(server)
        self.client = Client(self.server.url)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def draw(self, **request: Any) -> list[Picture]:
        """The pictures of a request in the schema's fields; what it leaves out is of DEFAULTS."""
        return self.draw_with({}, request)

    def draw_with(self, inputs: Mapping[str, Any], request: Mapping[str, Any]) -> list[Picture]:
        """The same, with inputs of nodes by their names, such as the Loader's `dev_file`."""
        request = {**DEFAULTS, **request}
        path = ROOT / "workflows" / "api" / f"{workflow_for(request)}.json"
        prompt = fill_prompt(json.loads(path.read_text(encoding="utf-8")), request)
        for node in prompt.values():
            own = inputs.keys() & node["inputs"].keys()
            node["inputs"].update({name: inputs[name] for name in own})
        self.result = self.client.run(prompt)
        return [read(self.client.view(entry)) for entry in self.result.images()]

    def upload(self, name: str, picture: Picture) -> str:
        """Put a picture into the input folder; what to name it in a request."""
        data = io.BytesIO()
        image(picture).save(data, "PNG")
        return self.client.upload(name, data.getvalue())


def read(data: bytes) -> Picture:
    """The pixels of a picture file."""
    with Image.open(io.BytesIO(data)) as opened:
        return np.divide(np.asarray(opened.convert("RGB")), 255, dtype=np.float32)


def image(picture: Picture) -> Image.Image:
    """A Pillow picture."""
    return Image.fromarray((picture * 255).round().astype(np.uint8))


def psnr(one: Picture, other: Picture) -> float:
    """How alike two pictures are, in dB; infinite for equal ones."""
    error = float(((one - other) ** 2).mean())
    return float("inf") if error == 0 else float(-10 * np.log10(error))
