"""A ComfyUI of its own for the tests of go_fast: its files may be damaged."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mini_flux import loras
from parity import Drawn, Used, draw, with_loras
from runtime.client import Client, Prompt, Result
from runtime.models import small_models
from runtime.server import ComfyServer
from safetensors.torch import load_file, save_file
from torch import Tensor

DEV = "flux1-dev.safetensors"
REQUEST = {"model": "dev", "megapixels": "0.25", "num_inference_steps": 1, "seed": 5}
KEPT = "flux_hotswap_int8"
QUANTISED = "is quantised and kept in"
"""In the log whenever that happens."""

State = dict[str, Tensor]


class Site:
    """A running ComfyUI, and what its last prompt said."""

    def __init__(self, server: ComfyServer) -> None:
        self.server = server
        self.client = Client(server.url)
        self.result: Result | None = None
        self.file = DEV
        self.loras: Sequence[Used] = ()

    # --- what `parity.draw` asks for ---

    def run(self, prompt: Prompt) -> Result:
        prompt = self.changed(prompt)
        self.result = self.client.run(prompt)
        return self.result

    def saved(self, name: str) -> dict[str, Tensor]:
        return load_file(self.server.output_dir / f"{name}.safetensors")

    # --- for tests ---

    def draw(
        self,
        file: str = DEV,
        loras: Sequence[Used] = (),
        workflow: str = "text_to_image",
        **request: Any,
    ) -> Tensor:
        """The latents of a request, with another file and with LoRAs."""
        self.file, self.loras = file, loras
        comfy: Any = self
        fields = REQUEST | {"go_fast": True} | request
        drawn: Drawn = draw(comfy, workflow, fields)
        return drawn.latents

    @property
    def reports(self) -> list[str]:
        """What the loader and the LoRA nodes of the last prompt reported."""
        assert self.result is not None
        return self.result.shown("text")

    @property
    def kept(self) -> list[Path]:
        """The quantised files."""
        return sorted(self.kept_folder.glob("*.safetensors"))

    @property
    def kept_folder(self) -> Path:
        return self.models / KEPT

    @property
    def models(self) -> Path:
        return self.server.models_dir / "diffusion_models"

    def times_quantised(self) -> int:
        return self.server.log_text().count(QUANTISED)

    def times_loaded(self) -> int:
        """How often a FLUX model was built from its file."""
        return self.server.log_text().count("model_type FLUX")

    def forget(self) -> None:
        """Have everything loaded anew by the next prompt."""
        # The loader holds the model from before for a while when it did not have to run.
        self.client.run(loader_alone(DEV, model="schnell", go_fast=False))
        self.client.free()

    def put_lora(self, name: str, seed: int) -> str:
        state = loras.diffusers(loras.blocks(seed=seed))
        loras.write(state, self.server.models_dir / "loras" / f"{name}.safetensors")
        return f"{name}.safetensors"

    def changed(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """A prompt with our file and LoRAs, that shows the reports."""
        made = with_loras(prompt, self.loras)
        key = next(key for key, node in made.items() if node["class_type"] == "FluxHotswapLoader")
        made[key]["inputs"]["dev_file"] = self.file
        shown = {f"report{index}": _show([f"lora{index}", 2]) for index in range(len(self.loras))}
        return made | {"report": _show([key, 1])} | shown


def loader_alone(file: str, **fields: Any) -> dict[str, Any]:
    """A prompt that loads and draws nothing, and is never taken from the cache.

    Args:
        file: of dev.
        fields: of the request that it loads for.
    """
    files = {"dev_file": file, "schnell_file": "flux1-schnell.safetensors"}
    request = {"prompt": uuid.uuid4().hex, **fields}
    return {
        "form": {"class_type": "FluxHotswapInputs", "inputs": request},
        "load": {"class_type": "FluxHotswapLoader", "inputs": {**files, "request": ["form", 0]}},
        "show": _show(["load", 1]),
    }


def _show(wire: list[Any]) -> dict[str, Any]:
    return {"class_type": "PreviewAny", "inputs": {"source": wire}}


def error(made: Tensor, wanted: Tensor) -> float:
    """How far a latent is from another, relative to its size."""
    return float((made - wanted).norm() / wanted.norm())


# --- files ---


def dev() -> State:
    """The tensors of the small dev model, in bf16, which holds them exactly."""
    state = load_file(small_models() / "diffusion_models" / DEV)
    return {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}


def large(path: Path, copies: int) -> None:
    """A model of many blocks in float32, slow to quantise: 30 MB for each copy of its blocks."""
    state = load_file(small_models() / "diffusion_models" / DEV)
    more = dict(state)
    for kind in ("double_blocks", "single_blocks"):
        for name, tensor in state.items():
            if name.startswith(f"{kind}."):
                _, index, rest = name.split(".", 2)
                for copy in range(1, copies):
                    more[f"{kind}.{int(index) + 2 * copy}.{rest}"] = tensor.clone()
    save_file(more, path)
