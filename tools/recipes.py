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
EXAMPLE_IMAGE: Final = "example.png"
"""ComfyUI brings this file in its input folder."""

FORM: Final = "FluxHotswapInputs"
PICTURE: Final = "LoadImage"
"""Which file it loads is named in the API prompts only. The editor takes the first that there is,
as on a new node: a named one that is missing opens with an error."""

SAVE: Final = "FluxHotswapSave"


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
    f"{_HUB}Comfy-Org/flux1-schnell/resolve/main/flux1-schnell.safetensors",
)
AE: Final = Model(
    "ae.safetensors",
    "vae",
    f"{_HUB}Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/ae.safetensors",
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
    """

    name: str
    title: str
    note: str
    build: Callable[[Graph], None]

    def graph(self, classes: Mapping[str, NodeInfo]) -> Graph:
        """Return the graph."""
        graph = Graph(classes)
        self.build(graph)
        return graph


def text_to_image(graph: Graph) -> None:
    """The request form, the models, and ComfyUI's own sampler."""
    _run(graph, _form(graph))


def image_to_image(graph: Graph) -> None:
    """Text to image, starting from a picture."""
    picture = graph.add(PICTURE, image=EXAMPLE_IMAGE)
    _run(graph, _form(graph, input_image=picture["IMAGE"]), picture=True)


def inpaint(graph: Graph) -> None:
    """Image to image where only the mask's white area changes."""
    picture = graph.add(PICTURE, image=EXAMPLE_IMAGE)
    inputs = _form(graph, input_image=picture["IMAGE"], input_mask=picture["MASK"])
    _run(graph, inputs, picture=True, keep=True)


def every_field(graph: Graph) -> None:
    """The one graph for every request: what is not given is left out."""
    _run(graph, _form(graph), picture=True, keep=True)


def _form(graph: Graph, **pictures: Wire) -> Node:
    return graph.add(FORM, prompt=EXAMPLE_PROMPT, seed=EXAMPLE_SEED, **pictures)


def _run(graph: Graph, inputs: Node, *, picture: bool = False, keep: bool = False) -> None:
    """Add everything behind the form.

    Args:
        graph: to add to.
        inputs: the form.
        picture: whether the latent can be a picture's.
        keep: whether what the mask keeps is laid over the result.
    """
    request = inputs["request"]
    models = _load_models(graph, request)
    vae = {"vae": models.vae} if picture else {}
    latent = graph.add("FluxHotswapLatent", request=request, **vae)
    result = _sample(graph, request, models, latent)
    if keep:
        # Sampling ends with the kept cells equal to the picture's up to rounding. Laying the
        # result over the picture's own latent makes them equal bit for bit; without a mask it
        # changes nothing.
        result = graph.add(
            "LatentCompositeMasked",
            destination=latent["LATENT"],
            source=result,
            mask=latent["mask"],
        )["LATENT"]
    pictures = graph.add("VAEDecode", samples=result, vae=models.vae)
    safe = graph.add("FluxHotswapSafety", images=pictures["IMAGE"], request=request)
    graph.add(SAVE, images=safe["images"], request=request)


@dataclass(frozen=True)
class _Models:
    """The wires of the loaded models."""

    model: Wire
    clip: Wire
    vae: Wire


def _load_models(graph: Graph, request: Wire) -> _Models:
    loader = graph.add(
        "FluxHotswapLoader", dev_file=DEV.name, schnell_file=SCHNELL.name, request=request
    )
    encoders = graph.add("DualCLIPLoader", clip_name1=CLIP_L.name, clip_name2=T5.name, type="flux")
    vae = graph.add("VAELoader", vae_name=AE.name)
    loras = graph.add(
        "FluxHotswapLora", model=loader["MODEL"], request=request, clip=encoders["CLIP"]
    )
    return _Models(loras["MODEL"], loras["CLIP"], vae["VAE"])


def _sample(graph: Graph, request: Wire, models: _Models, latent: Node) -> Wire:
    """Add everything between the latent and the finished latent."""
    prompt = graph.add("FluxHotswapPrompt", clip=models.clip, request=request)
    schedule = graph.add("FluxHotswapSchedule", request=request)
    noise = graph.add("FluxHotswapNoise", request=request)
    guider = graph.add("BasicGuider", model=models.model, conditioning=prompt["CONDITIONING"])
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=noise["NOISE"],
        guider=guider["GUIDER"],
        sampler=sampler["SAMPLER"],
        sigmas=schedule["SIGMAS"],
        latent_image=latent["LATENT"],
    )
    return sampled["output"]


_NOTE: Final = """## {title}

{about}

Files this needs, in ComfyUI's `models` folder:

{files}
"""
_FORM: Final = (
    "The form holds the fields of the hosted model: same names, same defaults, same ranges."
)


def _note(title: str, about: str) -> str:
    files = "\n".join(
        f"- `{model.directory}/`[{model.name}]({model.url})"
        for group in MODELS.values()
        for model in group
    )
    return _NOTE.format(title=title, about=about, files=files)


BLUEPRINT: Final = "FLUX Hotswap Run (Replicate LoRA)"
"""Name of the subgraph that the editor offers like a node. Its search finds the words that begin
within the first 30 letters."""

BLUEPRINT_ABOUT: Final = (
    "Everything behind the form: loads FLUX.1, LoRAs and text encoders, samples, decodes, checks."
)
RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe(
        "text_to_image",
        "FLUX Hotswap: text to image",
        _note("Text to image", f"{_FORM} Fill it in and queue."),
        text_to_image,
    ),
    Recipe(
        "image_to_image",
        "FLUX Hotswap: image to image",
        _note(
            "Image to image",
            f"{_FORM} Load your image on the left; `prompt_strength` says how much of it is "
            "repainted.",
        ),
        image_to_image,
    ),
    Recipe(
        "inpaint",
        "FLUX Hotswap: inpaint",
        _note(
            "Inpaint",
            f"{_FORM} Load your image on the left and paint what is to change with "
            "*Open in MaskEditor*. What you leave stays as it was, up to the VAE.",
        ),
        inpaint,
    ),
    Recipe(
        "flux_lora_schema",
        "FLUX Hotswap: every field",
        _note(
            "Every field",
            f"{_FORM} This one graph serves every request: text to image, image to image with "
            "`image`, inpainting with `image` and `mask`.",
        ),
        every_field,
    ),
)
