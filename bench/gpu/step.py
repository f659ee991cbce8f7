"""Stages 6, 7 and 9: a sampling step of a whole FLUX.1 dev on one engine."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from runtime import inside
from torch import Tensor

from bench import checkpoints, peers

from . import graph
from .kit import Kit, distance
from .predictions import of_step

RANK: Final = 16


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        double: number of double blocks.
        single: number of single blocks.
        width: of the model.
        side: of the picture, in pixels.
        text: tokens of text.
        steps: how many are timed.
        warm: how many run before.
        batch: number of pictures.
    """

    double: int
    single: int
    width: int
    side: int
    text: int
    steps: int
    warm: int
    batch: int = 1


FULL: Final = Size(19, 38, checkpoints.WIDTH, 1024, 512, 12, 4)
SMALL: Final = Size(2, 2, 256, 128, 32, 2, 1)

ENGINES: Final[dict[str, peers.Loader]] = {
    "bf16": peers.core(dtype=torch.bfloat16),
    "fp8_e4m3fn_fast": peers.core(dtype=peers.FP8, fp8_optimizations=True),
    "int8 of ComfyUI": peers.core_int8,
    "int8": peers.ours(matmul=True),
    "int8 storage": peers.ours(matmul=False),
    "fp8": peers.hosted,
}
"""ComfyUI's and ours; bf16 first, since the others are compared with it."""

OURS: Final = ("int8", "int8 storage", "fp8")


class Step:
    """One sampling step, as the sampler calls it."""

    def __init__(self, size: Size, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(5)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        self.latent = random(size.batch, 16, size.side // 8, size.side // 8)
        self.text = random(size.batch, size.text, checkpoints.CONTEXT)
        self.pooled = random(size.batch, checkpoints.POOLED)
        self.guidance = torch.full((size.batch,), 3.5, device=device)
        self.time = torch.full((size.batch,), 0.7, device=device)

    def on(self, device: torch.device) -> Step:
        """Return this with its inputs on a device."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))
        return self

    def __call__(self, patcher: Any, dit: dict[Any, Any] | None = None) -> Tensor:
        """Run the model once; [B,16,H/8,W/8].

        Args:
            patcher: whose model it is.
            dit: what takes the place of blocks, by (kind, index); None for the model's own.
        """
        options = dict(patcher.model_options["transformer_options"])
        if dit is not None:
            options["patches_replace"] = {"dit": dit}
        return patcher.model.apply_model(
            self.latent,
            self.time,
            c_crossattn=self.text,
            y=self.pooled,
            guidance=self.guidance,
            transformer_options=options,
        )


def why_not(engine: str) -> str:
    """Return why an engine cannot run here; nothing if it can."""
    if engine in ("int8", "int8 of ComfyUI") and not peers.has_matmul():
        return "comfy-kitchen is not installed"
    if engine == "int8 of ComfyUI" and not peers.core_has_int8():
        return "this ComfyUI does not know int8"
    return ""


def load(engine: str, size: Size, device: torch.device) -> Any:
    """Return a model whose random weights were made on the device."""
    state = checkpoints.weights(size.double, size.single, width=size.width, device=device)
    patcher = ENGINES[engine](state)
    del state
    gc.collect()
    if engine == "fp8":
        settle(patcher, Step(size, device))
    return patcher


def settle(patcher: Any, step: Step) -> None:
    """Fix the scales of inputs by what one step shows, as a calibrated model has them."""
    import comfy.model_management as management

    layers = inside.pack("engine.hosted").hosted_layers(patcher.model).values()
    for layer in layers:
        layer.calibration = inside.pack("ops.hosted.quantise").Calibration()
    management.load_models_gpu([patcher])
    step(patcher)
    for layer in layers:
        layer.take("input_scale", layer.calibration.scale.clone())
        layer.calibration = None


def write_lora(path: Path, size: Size, *, modulation: bool = True) -> Path:
    """Write a LoRA of every linear layer in the blocks, unless it is there."""
    if not path.is_file():
        about = {"rank": RANK, "width": size.width, "modulation": modulation}
        checkpoints.write_lora(path, size.double, size.single, **about)
    return path


def with_lora(engine: str, patcher: Any, path: Path) -> Any:
    """Apply the LoRA: ours with our node's function, the others as LoraLoaderModelOnly does."""
    if engine in OURS:
        return inside.pack("engine.loras").apply(path, patcher, None, 1.0)[0]
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.load_lora_for_models(patcher, None, state, 1.0, 0)[0]


# --- the stages ---


def begin(kit: Kit, engine: str, how: str = "") -> Size | None:
    """Start ComfyUI; the size to measure at, or None, with a note, where the engine cannot run."""
    kit.start_comfyui()
    if why := why_not(engine):
        kit.note(f"{engine}{how}", f"skipped: {why}")
        return None
    return SMALL if kit.small else FULL


def eager(kit: Kit, engine: str) -> None:
    """Measure a step as it is, without and with a LoRA, and how far the blocks are from bf16's."""
    if (size := begin(kit, engine)) is None:
        return
    with torch.inference_mode():
        patcher = load(engine, size, kit.device)
        step = Step(size, kit.device)
        measure(kit, engine, patcher, step, size)
        compare_blocks(kit, engine, patcher, step, size)
        lora = write_lora(kit.scratch / "lora.safetensors", size)
        adapted = with_lora(engine, patcher, lora)
        measure(kit, engine, adapted, step, size, lora=True)


def compiled(kit: Kit, engine: str) -> None:
    """Measure a step with its blocks compiled, and how many graphs that took."""
    if (size := begin(kit, engine, ", compiled")) is None:
        return
    with torch.inference_mode():
        patcher = load(engine, size, kit.device)
        graphs = Graphs(small=kit.small)
        compile_blocks(patcher, graphs)
        step = Step(size, kit.device)
        measure(kit, engine, patcher, step, size, graphs=graphs)
        if engine in OURS:
            lora = write_lora(kit.scratch / "lora.safetensors", size)
            adapted = with_lora(engine, patcher, lora)
            measure(kit, engine, adapted, step, size, lora=True, graphs=graphs)


def compile_blocks(patcher: Any, graphs: Graphs) -> None:
    """Compile every block, or what takes its place."""
    network = patcher.model.diffusion_model
    replaced = patcher.model_options["transformer_options"].get("patches_replace", {})
    for place, run in replaced.get("dit", {}).items():
        patcher.set_model_patch_replace(
            torch.compile(run, dynamic=False, backend=graphs), "dit", *place
        )
    if not replaced:
        for block in [*network.double_blocks, *network.single_blocks]:
            block.compile(dynamic=False, backend=graphs)


def sizes(kit: Kit, engine: str) -> None:
    """Measure a step of other sizes, and what a CUDA graph of a block would save."""
    if (size := begin(kit, engine)) is None:
        return
    with torch.inference_mode():
        patcher = load(engine, size, kit.device)
        for other in (replace(size, side=size.side * 3 // 4), replace(size, batch=4, steps=3)):
            label = f"{engine}, {other.side}x{other.side}, batch {other.batch}"
            measure(kit, engine, patcher, Step(other, kit.device), other, label=label)
        graph.blocks(kit, engine, patcher, Step(size, kit.device))


def measure(
    kit: Kit,
    engine: str,
    patcher: Any,
    step: Step,
    size: Size,
    *,
    lora: bool = False,
    graphs: Graphs | None = None,
    label: str = "",
) -> None:
    """Load a model and time some of its steps, each for itself."""
    import comfy.model_management as management

    kit.forget_peak()
    loading = kit.seconds(lambda: management.load_models_gpu([patcher]))
    before = graphs.count if graphs is not None else 0
    warming = kit.seconds(lambda: [step(patcher) for _ in range(size.warm)])
    times = [kit.seconds(lambda: step(patcher)) for _ in range(size.steps)]
    words = [label or engine]
    words += [f"LoRA of rank {RANK}"] if lora else []
    words += ["compiled"] if graphs is not None else []
    name = torch.cuda.get_device_name(kit.device) if kit.device.type == "cuda" else "CPU"
    wanted = "" if label or kit.small else of_step(
        name, engine, lora=lora, compiled=graphs is not None
    )  # fmt: skip
    kit.note(
        f"{', '.join(words)}: a step",
        round(statistics.median(times) * 1e3, 1),
        "ms",
        predicted=wanted,
        holds=None if bool(torch.isfinite(step(patcher)).all()) else False,
        runs_ms=[round(value * 1e3, 2) for value in times],
        load_seconds=round(loading, 2),
        warm_up_seconds=round(warming, 2),
        peak_gb=kit.peak(),
    )
    if graphs is not None:
        count = graphs.count - before
        new = 0 if lora and engine == "fp8" else 2  # merged into weights of the same kind
        kit.note(f"{', '.join(words)}: graphs", count, predicted=str(new), holds=count == new)


class Graphs:
    """The compiler of the blocks, counting what it is given.

    Args:
        small: takes the graphs as they are, which needs no C++ compiler.
    """

    def __init__(self, *, small: bool) -> None:
        self.count = 0
        self._small = small

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        """Compile one graph."""
        self.count += 1
        if self._small:
            return graph.forward
        from torch._inductor.compile_fx import compile_fx

        made: Any = compile_fx(graph, inputs)
        return made


def compare_blocks(kit: Kit, engine: str, patcher: Any, step: Step, size: Size) -> None:
    """Note how far the output is from bf16's behind the first, the last double and all blocks."""
    chosen = {
        1: ("double_block", 0),
        size.double: ("double_block", size.double - 1),
        size.double + size.single: ("single_block", size.single - 1),
    }
    options = patcher.model_options["transformer_options"]
    dit = dict(options.get("patches_replace", {}).get("dit", {}))
    found: dict[int, Tensor] = {}
    for number, place in chosen.items():
        dit[place] = keeper(found, number, dit.get(place))
    step(patcher, dit)
    reference = kit.scratch / "blocks.pt"
    if engine == "bf16":
        torch.save(found, reference)
    elif reference.is_file():
        wanted = torch.load(reference, weights_only=True)
        for number, made in found.items():
            error = round(distance(made, wanted[number]), 5)
            kit.note(f"{engine}: apart from bf16 behind block {number}", error)


def keeper(found: dict[int, Tensor], number: int, own: Callable[..., Any] | None) -> Any:
    """Return what takes a block's place, runs it and keeps its picture tokens.

    Args:
        found: where they are kept.
        number: under which.
        own: what takes its place already, as in engine fp8.
    """

    def keep(given: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        made = extra["original_block"](given) if own is None else own(given, extra)
        # A copy: the next block adds to it in place.
        found[number] = made["img"].to("cpu", torch.float32, copy=True)
        return made

    return keep
