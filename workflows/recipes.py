"""The shipped workflows, each a short recipe over the graph builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .graph import Graph, Node, Wire
from .nodes_info import NodeInfo

EXAMPLE_PROMPT: Final = (
    "a photo of a lighthouse on a cliff at dusk, waves, warm light in the window"
)
EXAMPLE_SEED: Final = 42


@dataclass(frozen=True)
class Model:
    """A model file that a workflow needs, as ComfyUI's missing-model dialog wants it."""

    name: str
    directory: str
    url: str


_HUB: Final = "https://huggingface.co/"
DEV: Final = Model(
    "flux1-dev.safetensors",
    "diffusion_models",
    f"{_HUB}black-forest-labs/FLUX.1-dev/resolve/main/flux1-dev.safetensors",
)
SCHNELL: Final = Model(
    "flux1-schnell.safetensors",
    "diffusion_models",
    f"{_HUB}black-forest-labs/FLUX.1-schnell/resolve/main/flux1-schnell.safetensors",
)
AE: Final = Model(
    "ae.safetensors",
    "vae",
    f"{_HUB}black-forest-labs/FLUX.1-schnell/resolve/main/ae.safetensors",
)
CLIP_L: Final = Model(
    "clip_l.safetensors",
    "text_encoders",
    f"{_HUB}comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
)
T5: Final = Model(
    "t5xxl_fp16.safetensors",
    "text_encoders",
    f"{_HUB}comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp16.safetensors",
)
MODELS: Final[dict[str, tuple[Model, ...]]] = {
    "FluxHotswapLoader": (DEV, SCHNELL),
    "VAELoader": (AE,),
    "DualCLIPLoader": (CLIP_L, T5),
}
"""Which node class reads which files."""


@dataclass(frozen=True)
class Recipe:
    """A shipped workflow.

    Attributes:
        name: of its files.
        title: for people.
        note: what the graph editor shows beside the graph, Markdown.
        build: adds the nodes.
        columns: groups of the editor's layout, left to right: title and node classes.
    """

    name: str
    title: str
    note: str
    build: Callable[[Graph], None]
    columns: tuple[tuple[str, tuple[str, ...]], ...]

    def graph(self, classes: Mapping[str, NodeInfo]) -> Graph:
        """Return the graph."""
        graph = Graph(classes)
        self.build(graph)
        return graph


def text_to_image(graph: Graph) -> None:
    """The request form, the models, and ComfyUI's own sampler."""
    inputs = graph.add("FluxHotswapInputs", prompt=EXAMPLE_PROMPT, seed=EXAMPLE_SEED)
    loader = graph.add(
        "FluxHotswapLoader",
        dev_file=DEV.name,
        schnell_file=SCHNELL.name,
        model=inputs["model"],
        go_fast=inputs["go_fast"],
        route_reason=inputs["route_reason"],
    )
    clip = graph.add("DualCLIPLoader", clip_name1=CLIP_L.name, clip_name2=T5.name, type="flux")
    vae = graph.add("VAELoader", vae_name=AE.name)
    latent = graph.add(
        "FluxHotswapLatent",
        aspect_ratio=inputs["aspect_ratio"],
        megapixels=inputs["megapixels"],
        width=inputs["width"],
        height=inputs["height"],
        num_outputs=inputs["num_outputs"],
    )
    pictures = _sample(graph, inputs, loader["MODEL"], clip["CLIP"], vae["VAE"], latent)
    graph.add(
        "FluxHotswapSave",
        images=pictures,
        output_format=inputs["output_format"],
        output_quality=inputs["output_quality"],
    )


def _sample(graph: Graph, inputs: Node, model: Wire, clip: Wire, vae: Wire, latent: Node) -> Wire:
    """Add everything between the latent and the pictures."""
    prompt = graph.add(
        "FluxHotswapPrompt",
        clip=clip,
        text=inputs["prompt"],
        model=inputs["model"],
        guidance=inputs["guidance_scale"],
    )
    schedule = graph.add(
        "FluxHotswapSchedule",
        model=inputs["model"],
        steps=inputs["num_inference_steps"],
        width=latent["width"],
        height=latent["height"],
        prompt_strength=inputs["prompt_strength"],
    )
    noise = graph.add("FluxHotswapNoise", seed=inputs["seed"])
    guider = graph.add("BasicGuider", model=model, conditioning=prompt["CONDITIONING"])
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=noise["NOISE"],
        guider=guider["GUIDER"],
        sampler=sampler["SAMPLER"],
        sigmas=schedule["SIGMAS"],
        latent_image=latent["LATENT"],
    )
    return graph.add("VAEDecode", samples=sampled["output"], vae=vae)["IMAGE"]


_NOTE: Final = """## {title}

The form holds the fields of the hosted model, with its names, defaults and ranges.
Fill it in and queue.

Files this needs, in ComfyUI's `models` folder:

{files}
"""


def _note(title: str) -> str:
    files = "\n".join(
        f"- `{model.directory}/`[{model.name}]({model.url})"
        for group in MODELS.values()
        for model in group
    )
    return _NOTE.format(title=title, files=files)


_COLUMNS: Final = (
    ("Request", ("FluxHotswapInputs",)),
    ("Models", ("FluxHotswapLoader", "DualCLIPLoader", "VAELoader")),
    ("Plan", ("FluxHotswapPrompt", "FluxHotswapLatent", "FluxHotswapSchedule")),
    ("Sampling", ("BasicGuider", "FluxHotswapNoise", "KSamplerSelect", "SamplerCustomAdvanced")),
    ("Pictures", ("VAEDecode", "FluxHotswapSave")),
)

RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe(
        "text_to_image",
        "FLUX Hotswap: text to image",
        _note("Text to image"),
        text_to_image,
        _COLUMNS,
    ),
)
