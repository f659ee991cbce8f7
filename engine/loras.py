"""LoRAs of a prompt: their files, and the model with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from ..errors import LoraError
from ..ops.lora.changes import Place, changes_to
from ..ops.lora.fit import Fit, describe, refusal
from ..ops.lora.watch import Watch
from ..prediction.plan import HOSTED, Lora
from . import ahead
from .arrival import Arrivals, arrivals_of, changes_of, everywhere
from .beside import add_beside, shapes_of
from .fetching import cancelled, open_store
from .lora_file import read, state_of
from .lora_patches import patch_of
from .models import ROUTE, recent

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..lora_fetch.fetch import Fetched

FITS: Final = "flux_hotswap_fits"
"""The attachment by which a MODEL says how its last LoRAs fitted."""

log = logging.getLogger(__name__)
watch = Watch()


# --- the file ---


@dataclass(frozen=True)
class Applied:
    """A LoRA of a request with its file."""

    lora: Lora
    found: Fetched

    def report(self, fit: Fitted, clip: Any) -> str:
        """Return what was done, in lines."""
        about = describe(fit.fit, has_clip=clip is not None)
        strength = f"strength: {self.lora.reckoning}"
        if fit.merged:
            strength += ", merged and rounded to fp8 as on the hosted model"
        elif self.lora.arrival == HOSTED:
            strength += f", of which arrives {fit.arrivals}"
        if fit.fit.changes_text and self.lora.multiplier != 1:
            strength += f"\ntext encoders: strength {self.lora.scale:g}"
        return "\n".join([*origin(self.found), *about, strength, *remarks(self.found)])

    def warnings(self, fit: Fitted, clip: Any) -> list[str]:
        """Return what the user should know: what the source warns of, what was not applied."""
        left = describe(fit.fit, has_clip=clip is not None)[1:]
        return [f"{self.found.source}: {text}" for text in (*self.found.warnings, *left)]

    def record(self, fitted: Fitted) -> dict[str, Any]:
        """Return the same for the record of the picture."""
        fit = fitted.fit
        arrives = {} if fitted.merged else {"arrives": round(fitted.arrivals.mean, 4)}
        return {
            "source": self.found.source,
            "file": self.found.path.name,
            "sha256": self.found.sha256,
            "strength": self.lora.strength,
            **arrives,
            "family": fit.family.name,
            "keys": fit.keys,
            "matched": fit.matched,
            "weights": fit.patched,
            "trigger_words": list(self.found.trigger_words),
        }


def get(lora: Lora) -> Fetched:
    """Return the file that a LoRA's source names, fetched unless it is here.

    Raises:
        HotswapError: it cannot be had; the message names the field and says why.
        InterruptProcessingException: the user pressed cancel.
    """
    found = ahead.lora(lora)
    if changes(lora.source):
        watch.note(lora.source, state_of(found))
    return found


def changes(source: str) -> bool:
    """Whether what source names can become another file."""
    from ..lora_fetch.parser import parse
    from ..lora_fetch.services.local import LocalFile

    parsed = parse(source)
    return isinstance(parsed, LocalFile) or parsed.moving


def current_hash(source: str) -> str | None:
    """Return the hash of what source names by now; None if that cannot be told.

    A name that can move is looked up again when that is due; nothing else goes to the network.
    """
    from ..errors import FetchError
    from ..lora_fetch.fetch import fetch
    from ..lora_fetch.parser import parse
    from ..lora_fetch.services.local import LocalFile

    try:
        store, parsed = open_store(), parse(source)
        if not isinstance(parsed, LocalFile) and store.find(parsed) is None:
            return None
        found = fetch(source, store=store, settings=store.settings, cancelled=cancelled)
    except (FetchError, OSError) as error:
        log.warning("The LoRA from before is used. %s", error)
        return None
    return state_of(found)


def origin(found: Fetched) -> list[str]:
    """Return the lines of the report that say which file it is."""
    size = f"{found.size / 1e6:.1f} MB" if found.size >= 1e5 else f"{found.size} bytes"
    return [
        f"source: {found.source}",
        f"file: {found.path.name}, {size}, sha256 {found.sha256[:12]}",
    ]


def remarks(found: Fetched) -> list[str]:
    """Return the lines of the report that tell what the source says besides."""
    words = [f"trigger words: {', '.join(found.trigger_words)}"] if found.trigger_words else []
    return words + [f"warning: {warning}" for warning in found.warnings]


# --- the model ---


def route_of(model: ModelPatcher) -> str:
    """Return the route that a MODEL runs on; bf16 unless its loader says otherwise."""
    attached = getattr(model, "get_attachment", None)
    return str((attached(ROUTE) if attached is not None else None) or "bf16")


def merges(model: ModelPatcher) -> bool:
    """Whether LoRAs are merged into a MODEL's weights, as engine fp8 does."""
    from .hosted import hosted_layers

    return bool(hosted_layers(model.model))


def apply_or_take(
    applied: Sequence[Applied], model: ModelPatcher, clip: Any
) -> tuple[ModelPatcher, Any, tuple[Fitted, ...]]:
    """Return model and clip with all LoRAs; the last prompt's, if it did the same.

    A new seed runs this node anew. With the same MODEL again, ComfyUI leaves the weights as they
    are instead of taking the LoRAs out and putting them in.

    Raises:
        HotswapError: nothing in a file fits the model.
    """
    if not applied:
        return model, clip, ()
    files = [
        (state_of(entry.found), entry.lora.strength, entry.lora.scale, entry.lora.arrival)
        for entry in applied
    ]
    key = (ref(model), model.patches_uuid, *files)
    if clip is not None:
        key += (ref(clip), clip.patcher.patches_uuid)
    made, text = recent.take(key), recent.take((*key, "clip"))
    if made is None or (text is None) != (clip is None):
        made, text, fits = model, clip, []
        for entry in applied:
            file = state_of(entry.found) if entry.lora.arrival == HOSTED else ""
            made, text, fit = apply(
                entry.found.path,
                made,
                text,
                entry.lora.strength,
                as_hosted=file,
                text_strength=entry.lora.scale,
            )
            fits.append(fit)
        made.set_attachments(FITS, tuple(fits))
        recent.note(key, made)
        if text is not None:
            recent.note((*key, "clip"), text)
    attached: Any = made.get_attachment(FITS)
    return made, text, attached


@dataclass(frozen=True)
class Fitted:
    """What became of a LoRA.

    Attributes:
        fit: what of its file belongs to the model.
        arrivals: how strongly it arrives.
        merged: whether it is merged into weights in fp8, which takes a part that nobody counts.
    """

    fit: Fit
    arrivals: Arrivals
    merged: bool = False


def apply(
    path: Path,
    model: ModelPatcher,
    clip: Any,
    strength: float,
    *,
    as_hosted: str = "",
    text_strength: float | None = None,
) -> tuple[ModelPatcher, Any, Fitted]:
    """Return copies of model and clip with the LoRA's patches, and how it fitted.

    Args:
        path: the file.
        model: that it is applied to.
        clip: the text encoders, or None.
        strength: what the LoRA is multiplied by.
        as_hosted: the file's hash where as much of the strength is to arrive as on the hosted
            model; empty for all of it.
        text_strength: what the LoRA is multiplied by in the text encoders, which go_fast leaves as
            they are; strength if None.

    Raises:
        HotswapError: nothing in the file fits the model.
    """
    import comfy.lora

    from .hosted_loras import merge_patches

    file = read(path)
    key_map: dict[str, Any] = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    shapes = shapes_of(model.model)
    if clip is not None:
        shapes |= shapes_of(clip.cond_stage_model)
    changes = changes_to(path.name, file.modules.values(), key_map, shapes, patch_of)
    fitting = changes.patches
    arrivals, merged = everywhere(strength), merges(model)
    if as_hosted and not merged:
        known = changes_of(fitting, shapes)
        device = model.load_device
        arrivals = arrivals_of(model, known, strength, as_hosted, device)
    model = model.clone()
    if merged:
        done, left = merge_patches(model, fitting, strength)
    else:
        done, left = add_beside(model, fitting, arrivals.of)
    patched = done | add_patches(model, left, arrivals)
    if clip is not None:
        clip = clip.clone()
        whole = strength if text_strength is None else text_strength
        patched |= set(clip.add_patches(left, whole))
    fit = changes.result(file.fit, patched)
    if not patched:
        raise LoraError(refusal(path.name, fit, has_clip=clip is not None))
    return model, clip, Fitted(fit, arrivals, merged)


def add_patches(model: ModelPatcher, patches: Mapping[Any, Any], arrivals: Arrivals) -> set[Any]:
    """Give the core patches, each with the strength of its weight; the keys that it took."""
    taken: set[Any] = set()
    for key, patch in patches.items():
        taken |= set(model.add_patches({key: patch}, arrivals.of(Place(key).weight)))
    return taken
