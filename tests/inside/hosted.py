"""Engine fp8 inside ComfyUI, against what the hosted model's own code computed, bit for bit."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from hosted_files import write_hosted
from hosted_vectors import DATA, PORTABLE, SAME_SUMS, WAITS, file_of, sha
from hosted_vectors import SAID as PARTS
from hosted_vectors import WHOLE as SAID
from hosted_vectors import model as state_of
from runtime import inside
from safetensors.torch import load
from torch import Tensor

LAYERS: dict[str, Any] = PARTS["layers"]
TEXTS = load(lzma.decompress((DATA / "hosted_flux.safetensors.xz").read_bytes()))
COEFFICIENT = SAID["lora"]["coefficient"]

OUTPUTS = [
    (model, text, size, sigma)
    for model, said in SAID["models"].items()
    for text, sizes in said["outputs"].items()
    for size, sigmas in sizes.items()
    for sigma in sigmas
]
RUNS = [(model, run) for model, said in SAID["models"].items() for run in said["runs"]]


class Hosted:
    """Models on engine fp8 whose sums are portable, and with the LoRA."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Any] = {}

    def file(self, name: str) -> Path:
        """The small model in the hosted format, with the scales that the hosted code found."""
        path = self.folder / f"{name}-fp8.safetensors"
        if not path.exists():
            write_hosted(state_of(name), SAID["models"][name]["input_scales"], path)
        return path

    def model(self, name: str, text: str = "base", *, portable: bool = True) -> Any:
        key = f"{name} {text} {portable}"
        if key not in self._made:
            load = self._lora if text == "lora" else self._load
            self._made[key] = load(name, portable)
        return self._made[key]

    def _load(self, name: str, portable: bool) -> Any:
        read = inside.pack("engine.kept").read_state
        adopt = inside.pack("ops.checkpoint.hosted").adopt
        path = self.file(name)
        state = adopt(read(path), path.name, lambda *_: None)
        sums = PORTABLE if portable else None
        return inside.pack("engine.hosted").build(state, path.name, sums)

    def _lora(self, name: str, portable: bool) -> Any:
        path = self.folder / "sticker.safetensors"
        path.write_bytes(file_of(SAID["lora"]["file"]))
        apply = inside.pack("engine.loras").apply
        return apply(path, self.model(name, portable=portable), None, COEFFICIENT)[0]


@pytest.fixture(scope="session")
def hosted(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Hosted:
    return Hosted(tmp_path_factory.mktemp("hosted"))


def noise(height: int, width: int, seed: int) -> Tensor:
    return inside.pack("ops.noise").hosted_noise(
        seed, batch=1, height=height // 8, width=width // 8
    )


def conditioning(model: str, text: str) -> list[Any]:
    t5, pooled = (TEXTS[f"{model}/text/{text}/{part}"].float() for part in ("t5", "clip"))
    told = {"guidance": SAID["guidance"]} if model == "dev" else {}
    return [[t5, {"pooled_output": pooled, **told}]]


def sample(model: Any, cond: list[Any], noise: Tensor, sigmas: list[float]) -> Tensor:
    """Sample as the graph does; the latent as the model has it, bf16."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": cond})
    made = guider.sample(
        noise,
        torch.zeros_like(noise),
        comfy.samplers.sampler_object("euler"),
        torch.tensor(sigmas),
        disable_pbar=True,
        seed=1,
    )
    inner: Tensor = model.model.process_latent_in(made)
    rounded = inner.to(torch.bfloat16)
    assert torch.allclose(rounded.to(torch.float32), inner, atol=1e-5), "its latent was in bf16"
    return rounded


@pytest.mark.parametrize(("model", "text", "size", "sigma"), OUTPUTS)
def test_every_prediction(hosted: Hosted, model: str, text: str, size: str, sigma: str) -> None:
    """One step of the size of the noise level itself: latent minus sigma times the prediction."""
    height, width = map(int, size.split("x"))
    level = SAID["sigmas"][sigma]
    heard: list[Tensor] = []
    import comfy.patcher_extension

    made = hosted.model(model, text).clone()

    def hear(executor: Any, *args: Any, **kwargs: Any) -> Any:
        found = executor(*args, **kwargs)
        heard.append(found)
        return found

    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    made.add_wrapper_with_key(kind, "test", hear)
    started = noise(height, width, SAID["seed"])
    sample(made, conditioning(model, text), started / level, [level, 0.0])
    (prediction,) = heard
    assert prediction.dtype == torch.bfloat16
    assert sha(prediction) == SAID["models"][model]["outputs"][text][size][sigma]


@pytest.mark.parametrize(("model", "run"), RUNS)
def test_whole_runs(hosted: Hosted, model: str, run: str) -> None:
    said = SAID["models"][model]["runs"][run]
    started = noise(said["size"], said["size"], said["seed"])
    text = said["text"]
    made = sample(hosted.model(model, text), conditioning(model, text), started, said["sigmas"])
    assert sha(made) == said["latent"]


@pytest.mark.skipif(not SAME_SUMS, reason=WAITS)
@pytest.mark.parametrize(("model", "run"), RUNS)
def test_whole_runs_in_the_order_of_this_cpus_sums(hosted: Hosted, model: str, run: str) -> None:
    said = SAID["models"][model]["runs"][run]
    started = noise(said["size"], said["size"], said["seed"])
    text = said["text"]
    plain = hosted.model(model, text, portable=False)
    made = sample(plain, conditioning(model, text), started, said["sigmas"])
    assert sha(made) == said["plain_latent"]


def weights(model: Any) -> dict[str, tuple[str, float]]:
    layers = inside.pack("engine.hosted").hosted_layers(model.model)
    return {
        name.removeprefix("diffusion_model."): (sha(layer.weight), float(layer.scale))
        for name, layer in layers.items()
    }


@pytest.mark.parametrize("model", SAID["models"])
def test_a_lora_in_every_weight_and_out_again(hosted: Hosted, comfy: Any, model: str) -> None:
    said = LAYERS[model]
    load_models = comfy.model_management.load_models_gpu
    before = {name: (layer[0], layer[1]) for name, layer in said.items()}
    after = {name: (layer[3], layer[4]) for name, layer in said.items()}
    for _ in range(2):
        load_models([hosted.model(model)])
        assert weights(hosted.model(model)) == before
        load_models([hosted.model(model, "lora")])
        assert weights(hosted.model(model)) == after
    comfy.model_management.unload_all_models()
    assert weights(hosted.model(model)) == before


def core_lora(model: Any, folder: Path) -> Any:
    """The same LoRA by ComfyUI's own loader."""
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(str(folder / "sticker.safetensors"))
    return comfy.sd.load_lora_for_models(model, None, state, COEFFICIENT, 0.0)[0]


def predict(model: Any) -> Tensor:
    """One step's prediction, by what it makes of a latent of bf16 numbers."""
    started = noise(128, 192, SAID["seed"])
    return sample(model, conditioning("dev", "lora"), started, [1.0, 0.0]) - started


def error(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).float().norm() / wanted.float().norm())


def test_low_memory_gives_the_same(hosted: Hosted, comfy: Any) -> None:
    for text in ("base", "lora"):
        model = hosted.model("dev", text).clone()
        wanted = predict(model)
        comfy.model_management.unload_all_models()
        model.partially_load(torch.device("cpu"), extra_memory=1)
        assert torch.equal(predict(model), wanted)
        model.detach()


def test_a_lora_by_another_node_arrives_and_goes(hosted: Hosted, comfy: Any) -> None:
    """It is rounded with the weight's own scale; about the same, since that moves little."""
    base, ours = hosted.model("dev"), hosted.model("dev", "lora")
    without, wanted = predict(base), predict(ours)
    made = predict(core_lora(base, hosted.folder))
    assert error(made, wanted) < 0.6 * error(without, wanted)
    assert torch.equal(predict(base), without)
    low = core_lora(base, hosted.folder)
    comfy.model_management.unload_all_models()
    low.partially_load(torch.device("cpu"), extra_memory=1)
    assert error(predict(low), wanted) < 0.6 * error(without, wanted)
    low.detach()


def test_another_sampler_is_left_alone(hosted: Hosted) -> None:
    import comfy.samplers

    started = noise(128, 192, SAID["seed"])
    guider = comfy.samplers.CFGGuider(hosted.model("dev"))
    guider.inner_set_conds({"positive": conditioning("dev", "base")})
    sampler = comfy.samplers.sampler_object("heun")
    sigmas = torch.tensor([1.0, 0.6, 0.2, 0.0])
    made = guider.sample(started, torch.zeros_like(started), sampler, sigmas, disable_pbar=True)
    inner = hosted.model("dev").model.process_latent_in(made)
    assert not torch.allclose(inner.to(torch.bfloat16).float(), inner, atol=1e-5), "float32"
    assert torch.isfinite(made).all()


def test_several_answers_are_put_together(hosted: Hosted) -> None:
    """The same prompt twice, which ComfyUI adds up, is that prompt."""
    once, started = conditioning("dev", "base"), noise(128, 192, 7)
    made = sample(hosted.model("dev"), [*once, *once], started, [1.0, 0.5, 0.0])
    wanted = sample(hosted.model("dev"), once, started, [1.0, 0.5, 0.0])
    assert error(made, wanted) < 0.01


def test_prompts_for_halves_of_a_picture(hosted: Hosted) -> None:
    both: list[Any] = []
    for x, text in ((0, "base"), (12, "lora")):
        ((t5, told),) = conditioning("dev", text)
        both.append([t5, {**told, "area": (16, 12, 0, x), "strength": 1.0}])
    started = noise(128, 192, 7)
    made = sample(hosted.model("dev"), both, started, [1.0, 0.5, 0.0])
    for text, half in (("base", slice(0, 12)), ("lora", slice(12, 24))):
        alone = sample(
            hosted.model("dev"), conditioning("dev", text), started[..., half], [1.0, 0.5, 0.0]
        )
        assert error(made[..., half], alone) < 0.01
