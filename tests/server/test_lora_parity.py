"""Our LoRA node draws what diffusers draws with `load_lora_weights` and `set_adapters`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mini_flux import loras
from mini_flux.loras import Delta, Part, State
from parity import Drawn, Request, assert_same, draw, reference, with_loras
from runtime.client import Prompt, Result
from runtime.session import Comfy
from torch import Tensor

TOLERANCE = 1e-4
REQUEST = {
    "model": "schnell",
    "aspect_ratio": "custom",
    "width": 256,
    "height": 256,
    "num_inference_steps": 2,
    "seed": 42,
}
ONE_STEP = REQUEST | {"num_inference_steps": 1}
DEV = REQUEST | {"model": "dev", "num_inference_steps": 4}

Used = tuple[str, float]
"""A file's name and the scale."""


class WithLoras:
    """A ComfyUI that puts LoRA nodes behind the loader of every prompt."""

    def __init__(self, comfy: Comfy, used: list[Used]) -> None:
        self.comfy = comfy
        self.used = used

    def run(self, prompt: Prompt) -> Result:
        used = [(source, {"scale": scale}) for source, scale in self.used]
        return self.comfy.run(with_loras(prompt, used))

    def saved(self, name: str) -> dict[str, Any]:
        return self.comfy.saved(name)


class Stand:
    """Puts LoRA files where the server finds them, and draws with them on both sides."""

    def __init__(self, comfy: Comfy) -> None:
        self.comfy = comfy
        self.folder = comfy.server.models_dir / "loras" / "parity"
        self.states: dict[str, State] = {}

    def put(self, name: str, state: State, metadata: dict[str, str] | None = None) -> str:
        """Write a file; what to name it in the node."""
        loras.write(state, self.folder / f"{name}.safetensors", metadata)
        self.states[f"parity/{name}.safetensors"] = state
        return f"parity/{name}.safetensors"

    def ours(self, *used: Used, request: Request = REQUEST) -> Drawn:
        """What the workflow draws."""
        with_nodes: Any = WithLoras(self.comfy, list(used))
        return draw(with_nodes, "text_to_image", request)

    def theirs(self, ours: Drawn, *used: Used, request: Request = REQUEST) -> Tensor:
        """What diffusers draws."""
        pipes = reference(request["model"], self.comfy.models)
        with loras.adapted(pipes.text, [(self.states[name], scale) for name, scale in used]):
            return pipes.draw(ours, request).latents

    def compare(self, *used: Used, request: Request = REQUEST) -> Tensor:
        """Both, which must be the same."""
        ours = self.ours(*used, request=request)
        assert_same(ours.latents, self.theirs(ours, *used, request=request), TOLERANCE)
        return ours.latents


@pytest.fixture(scope="module")
def stand(comfy: Comfy) -> Iterator[Stand]:
    made = Stand(comfy)
    yield made
    for path in made.folder.iterdir():
        path.unlink()
    made.folder.rmdir()


@pytest.fixture(scope="module")
def plain(stand: Stand) -> Tensor:
    """What is drawn without a LoRA."""
    return stand.ours().latents


def without_linear1(delta: Delta) -> Delta:
    """What diffusers' kohya conversion takes of a small FLUX: it knows one width of `linear1`."""
    return {name: part for name, part in delta.items() if "linear1" not in name}


SCHNELL = {name: part for name, part in loras.everything().items() if "guidance_in" not in name}
"""A delta of every layer of schnell."""

READ_BY_DIFFUSERS: dict[str, tuple[Callable[[Delta], State], Delta]] = {
    "diffusers, blocks": (loras.FAMILIES["diffusers"], loras.blocks()),
    "diffusers with alpha": (loras.FAMILIES["diffusers with alpha"], SCHNELL),
    "diffusers, lora_down and lora_up": (
        loras.FAMILIES["diffusers, lora_down and lora_up"],
        loras.blocks(),
    ),
    "kohya": (loras.kohya, without_linear1(loras.blocks())),
    "kohya without alpha": (
        loras.FAMILIES["kohya without alpha"],
        without_linear1(loras.blocks()),
    ),
    "ComfyUI, lora_down and lora_up": (
        loras.FAMILIES["ComfyUI, lora_down and lora_up"],
        without_linear1(loras.blocks()),
    ),
    # Of OneTrainer's names diffusers reads those of the attention only.
    "OneTrainer": (
        loras.FAMILIES["OneTrainer"],
        {name: part for name, part in loras.attention().items() if "double" in name},
    ),
    "XLabs, double and single blocks": (loras.xlabs, loras.attention()),
}


SCALES = [-1.0, 0.5, 1.0, 3.0]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("family", READ_BY_DIFFUSERS)
def test_a_family_equals_diffusers(stand: Stand, plain: Tensor, family: str, scale: float) -> None:
    spelled, delta = READ_BY_DIFFUSERS[family]
    drawn = stand.compare((stand.put("family", spelled(delta)), scale))
    assert (drawn - plain).abs().max() > 1e-1, "the LoRA does too little for a comparison"


def test_a_scale_of_0_equals_diffusers(stand: Stand, plain: Tensor) -> None:
    """Whatever the file is: at this scale nobody reads it."""
    name = stand.put("family", loras.kohya(without_linear1(loras.blocks())))
    assert torch.equal(stand.compare((name, 0.0)), plain)


@pytest.mark.parametrize("scale", SCALES)
def test_every_layer_of_dev_equals_diffusers(stand: Stand, scale: float) -> None:
    """Embedders and the last layer too, whose modulation diffusers keeps in another order."""
    name = stand.put("dev", loras.diffusers(loras.everything(seed=2), alpha=8.0))
    stand.compare((name, scale), request=DEV)


NEIGHBOURS = list(zip(READ_BY_DIFFUSERS, [*list(READ_BY_DIFFUSERS)[1:], "kohya"], strict=True))
SCALES_OF_TWO = [(1.0, 1.0), (0.5, -1.0), (3.0, 0.5)]
PAIRS = [
    *((families, scales) for families in NEIGHBOURS for scales in SCALES_OF_TWO),
    (NEIGHBOURS[0], (0.0, 1.0)),
]


@pytest.mark.parametrize(("families", "scales"), PAIRS, ids=str)
def test_two_equal_diffusers(
    stand: Stand, families: tuple[str, str], scales: tuple[float, float]
) -> None:
    used: list[Used] = []
    for index, family in enumerate(families):
        spelled, delta = READ_BY_DIFFUSERS[family]
        changed = {name: Part(part.down.roll(index, 1), part.up) for name, part in delta.items()}
        used.append((stand.put(f"pair{index}", spelled(changed)), scales[index]))
    stand.compare(*used)


def test_the_same_twice_adds_up(stand: Stand) -> None:
    name = stand.put("twice", loras.kohya(without_linear1(loras.blocks(seed=6))))
    twice = stand.compare((name, 0.5), (name, 1.0))
    assert_same(twice, stand.ours((name, 1.5)).latents, 1e-5)


# --- the same delta in all spellings, also in those that diffusers does not read ---


@pytest.fixture(scope="module")
def in_diffusers_names(stand: Stand) -> Tensor:
    name = stand.put("base", loras.diffusers(SCHNELL))
    return stand.ours((name, 1.0), request=ONE_STEP).final


OTHERS = [name for name in loras.FAMILIES if name != "diffusers"]


@pytest.mark.parametrize("family", OTHERS)
def test_the_families_are_one_lora(stand: Stand, in_diffusers_names: Tensor, family: str) -> None:
    name = stand.put("spelled", loras.FAMILIES[family](SCHNELL))
    assert torch.equal(stand.ours((name, 1.0), request=ONE_STEP).final, in_diffusers_names)


def test_xlabs_is_the_same_lora(stand: Stand) -> None:
    delta = loras.attention(seed=8)
    names = [
        stand.put("attention", loras.diffusers(delta)),
        stand.put("attention-xlabs", loras.xlabs(delta)),
    ]
    drawn = [stand.ours((name, 1.0), request=ONE_STEP).final for name in names]
    assert torch.equal(*drawn)


def test_an_alpha_in_the_head_is_the_same_lora(stand: Stand, in_diffusers_names: Tensor) -> None:
    """Newer diffusers writes it there instead of into tensors."""
    state = loras.diffusers(SCHNELL, alpha=2.0)
    state = {name: tensor for name, tensor in state.items() if not name.endswith(".alpha")}
    settings = {"transformer.r": loras.RANK, "transformer.lora_alpha": 2.0}
    name = stand.put("head", state, {"lora_adapter_metadata": json.dumps(settings)})
    assert torch.equal(stand.ours((name, 1.0), request=ONE_STEP).final, in_diffusers_names)
