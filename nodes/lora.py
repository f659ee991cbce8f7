"""FluxHotswapLora: a LoRA from any source, fetched once and applied as ComfyUI does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from comfy_api.latest import io

from ..ops.lora.fit import Fit, Reads, check_shape, describe, refusal
from ..ops.lora.names import adapter_alphas, convert
from ..ops.lora.watch import Watch
from ..prediction.errors import HotswapError
from ..prediction.spec import FIELD, GO_FAST_MULTIPLIER
from .base import CATEGORY, ROUTE, Minimum, aliases, field_input
from .fetching import cancelled, cancelled_as_comfy_does, progress_bar, settings
from .fp8_lora import add_beside, shapes_of
from .loader import recent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..lora_fetch.fetch import Fetched
    from ..lora_fetch.store import Store

FOLDER: Final = "loras"
FIT: Final = "flux_hotswap_fit"
"""The attachment by which a MODEL says how its last LoRA fitted."""

log = logging.getLogger(__name__)
watch = Watch()


class FluxHotswapLora(io.ComfyNode):
    """Applies the LoRA that a request names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="FluxHotswapLora",
            display_name="FLUX Hotswap LoRA",
            category=CATEGORY,
            **aliases("lora loader", "download lora", "civitai", "hugging face", "replicate lora"),
            description="Fetches a LoRA from Replicate, Hugging Face, CivitAI, a link or the loras "
            "folder, and applies it.",
            inputs=[
                io.Model.Input("model", tooltip="The FLUX.1 model that the LoRA is applied to."),
                field_input(
                    FIELD["lora"],
                    name="source",
                    tooltip="A Replicate model (owner/name), a Hugging Face or CivitAI link, any "
                    ".safetensors link, or a file in the loras folder. Empty: no LoRA.",
                ),
                field_input(
                    FIELD["lora_scale"],
                    name="scale",
                    tooltip="Strength of the LoRA. 0: no LoRA, nothing is fetched.",
                ),
                io.Float.Input(
                    "go_fast_multiplier",
                    default=GO_FAST_MULTIPLIER,
                    min=Minimum(0.0),
                    max=3.0,
                    step=0.01,
                    optional=True,
                    tooltip="What the strength is multiplied by, on the fp8 route only; "
                    "1.0 turns it off.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoders, for LoRAs that change them too.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "out_model", display_name="MODEL", tooltip="The model with the LoRA."
                ),
                io.Clip.Output(
                    "out_clip",
                    display_name="CLIP",
                    tooltip="The text encoders with the LoRA, if they are connected.",
                ),
                io.String.Output(
                    "out_report",
                    display_name="report",
                    tooltip="What was fetched, what of it was applied, and how strongly.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, source: str | None = "") -> bool | str:
        """Refuse a source that means nothing, before anything runs."""
        from ..lora_fetch.errors import FetchError
        from ..lora_fetch.parser import parse

        try:
            if source and source.strip():
                parse(source)
        except FetchError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, source: str | None = "", **_: Any) -> str:
        """Run anew when a file that was applied is another one now; keep what was made before."""
        recent.hold()
        return watch.state(source, current_hash)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        source: str = "",
        scale: float = 1.0,
        go_fast_multiplier: float = GO_FAST_MULTIPLIER,
        clip: Any = None,
    ) -> io.NodeOutput:
        """Fetch and apply the LoRA, or pass everything through."""
        strength, reckoning = effective_strength(scale, go_fast_multiplier, route_of(model))
        if not source.strip():
            return io.NodeOutput(model, clip, "no LoRA: source is empty")
        if strength == 0:
            return io.NodeOutput(model, clip, f"no LoRA: the strength is {reckoning}")
        found = get(source)
        model, clip, fit = apply_or_take(found, model, clip, strength)
        about = describe(fit, has_clip=clip is not None)
        report = "\n".join([*origin(found), *about, f"strength: {reckoning}", *notes(found)])
        log.info("LoRA applied\n%s", report)
        return io.NodeOutput(model, clip, report)


# --- the file ---


def get(source: str) -> Fetched:
    """Return the file that source names, fetched unless it is here.

    Raises:
        FetchError: it cannot be had; the message says why.
        InterruptProcessingException: the user pressed cancel.
    """
    from ..lora_fetch.fetch import fetch

    store = open_store()
    with cancelled_as_comfy_does():
        found = fetch(
            source,
            store=store,
            settings=store.settings,
            progress=progress_bar(),
            cancelled=cancelled,
        )
    if changes(source):
        watch.note(source, found.sha256)
    return found


def changes(source: str) -> bool:
    """Whether what source names can become another file."""
    from ..lora_fetch.parser import parse
    from ..lora_fetch.source import LocalFile

    parsed = parse(source)
    return isinstance(parsed, LocalFile) or parsed.moving


def current_hash(source: str) -> str | None:
    """Return the hash of what source names by now; None if that cannot be told.

    A name that can move is looked up again when that is due; nothing else goes to the network.
    """
    from ..lora_fetch.errors import FetchError
    from ..lora_fetch.fetch import fetch
    from ..lora_fetch.parser import parse
    from ..lora_fetch.source import LocalFile

    try:
        store, parsed = open_store(), parse(source)
        if not isinstance(parsed, LocalFile) and store.find(parsed) is None:
            return None
        found = fetch(source, store=store, settings=store.settings, cancelled=cancelled)
    except (FetchError, OSError) as error:
        log.warning("The LoRA from before is used. %s", error)
        return None
    return found.sha256


def origin(found: Fetched) -> list[str]:
    """Return the lines of the report that say which file it is."""
    size = f"{found.size / 1e6:.1f} MB" if found.size >= 1e5 else f"{found.size} bytes"
    return [
        f"source: {found.source}",
        f"file: {found.path.name}, {size}, sha256 {found.sha256[:12]}",
    ]


def notes(found: Fetched) -> list[str]:
    """Return the lines of the report that tell what the source says besides."""
    words = [f"trigger words: {', '.join(found.trigger_words)}"] if found.trigger_words else []
    return words + [f"warning: {warning}" for warning in found.warnings]


def open_store() -> Store:
    """Return the store in ComfyUI's first loras folder.

    Raises:
        SettingsError: an environment variable or the token file cannot be used.
    """
    import folder_paths

    from ..lora_fetch.store import Store

    folders = [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]
    return Store(folders[0], settings(), folders=folders)


# --- the model ---


def route_of(model: ModelPatcher) -> str:
    """Return the route that a MODEL runs on; bf16 unless its loader says otherwise."""
    attached = getattr(model, "get_attachment", None)
    return str((attached(ROUTE) if attached is not None else None) or "bf16")


def effective_strength(scale: float, multiplier: float, route: str) -> tuple[float, str]:
    """Return what the LoRA's delta is multiplied by, and how that came about."""
    if route != "fp8" or multiplier == 1:
        return scale, f"{scale:g}"
    strength = scale * multiplier
    return strength, f"{strength:g} ({scale:g} times {multiplier:g} on the fp8 route)"


def apply_or_take(
    found: Fetched, model: ModelPatcher, clip: Any, strength: float
) -> tuple[ModelPatcher, Any, Fit]:
    """Return what `apply` does; the last prompt's, if it did the same.

    A new seed runs this node anew. With the same MODEL again, ComfyUI leaves the weights as they
    are instead of taking the LoRA out and putting it in.

    Raises:
        HotswapError: nothing in the file fits the model.
    """
    key = (ref(model), model.patches_uuid, found.path, found.sha256, strength)
    if clip is not None:
        key += (ref(clip), clip.patcher.patches_uuid)
    made, text = recent.take(key), recent.take((*key, "clip"))
    if made is None or (text is None) != (clip is None):
        made, text, fit = apply(found.path, model, clip, strength)
        made.set_attachments(FIT, fit)
        recent.note(key, made)
        if text is not None:
            recent.note((*key, "clip"), text)
    fit: Any = made.get_attachment(FIT)
    return made, text, fit


def apply(
    path: Path, model: ModelPatcher, clip: Any, strength: float
) -> tuple[ModelPatcher, Any, Fit]:
    """Return copies of model and clip with the LoRA's patches, and how it fitted.

    Raises:
        HotswapError: nothing in the file fits the model.
    """
    import comfy.lora
    import comfy.lora_convert

    state, fit = read(path)
    key_map: dict[str, Any] = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    reads = Reads(comfy.lora_convert.convert_lora(state))
    patches = comfy.lora.load_lora(reads, key_map, log_missing=False)
    shapes = shapes_of(model.model)
    if clip is not None:
        shapes |= shapes_of(clip.cond_stage_model)
    fitting, misfits = sort_out(patches, shapes)
    model = model.clone()
    beside, left = add_beside(model, fitting, strength)
    patched = beside | set(model.add_patches(left, strength))
    if clip is not None:
        clip = clip.clone()
        patched |= set(clip.add_patches(left, strength))
    fit = fit.with_result(unread=reads.unread(), patched=len(patched), misfits=misfits)
    if not patched:
        raise HotswapError(refusal(path.name, fit))
    return model, clip, fit


def read(path: Path) -> tuple[dict[str, Tensor], Fit]:
    """Return a file's tensors under names that the core knows.

    Raises:
        HotswapError: the file cannot be used.
    """
    import comfy.utils
    import torch

    from ..lora_fetch import header

    raw: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    try:
        state = convert(raw)
    except ValueError as error:
        raise HotswapError(f"{path.name} cannot be used: {error}") from error
    fit = Fit.of(raw, state)
    alphas = adapter_alphas(header.read(path).metadata, state)
    state |= {name: torch.tensor(alpha) for name, alpha in alphas.items()}
    return state, fit


def sort_out(
    patches: dict[Any, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[Any, Any], list[str]]:
    """Return the patches that have the shape of their weight, and what is wrong with the others.

    The core would only log those, in the middle of sampling.
    """
    fitting: dict[Any, Any] = {}
    misfits: list[str] = []
    for key, patch in patches.items():
        name, *rest = (key,) if isinstance(key, str) else key
        shape = shapes.get(name)
        rows = rest[0][2] if rest and rest[0] is not None else None
        problem = None if shape is None else check_shape(patch, shape, rows)
        if problem is None:
            fitting[key] = patch
        else:
            misfits.append(f"{name.removeprefix('diffusion_model.')} ({problem})")
    return fitting, misfits
