"""What a LoRA file is and what it would change, told without a model and without ComfyUI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file
from torch import Tensor

from ...errors import LoraError
from ...files import header
from ...texts import one_line
from .changes import Changes, Place, changes_to
from .dylora import block_of
from .file import checked, config_of, modules_of, other_model_of, refuse_numbers
from .fit import Fit, describe, refusal
from .flux1 import key_map, part_of, shapes
from .parts import MAGNITUDES, RANKED, Kind, Module, kind_of
from .trainer import frequent_tag, trainer_of

FLUX: Final = "FLUX.1"
_LONGEST: Final = 2000
"""Most characters of a line."""
_KINDS: Final = {
    "lora": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "glora": "GLoRA",
    "oft": "OFT",
    "diff": "whole difference",
    "set": "whole weight",
}
_GLORA: Final = "b2"
"""As high as the rank, in the first versions of LyCORIS as wide."""


@dataclass(frozen=True)
class Inspection:
    """What is known of a file.

    Attributes:
        trainer: which program made it, as far as its head says.
        model: which model it is made for; None if that is not known.
        kinds: how many modules are written in which way.
        ranks: how many modules have which rank.
        alphas: how many modules have which alpha; those without one, whose alpha is the rank, are
            not counted.
        layers: how many layers it changes, by the parts of the pipeline.
        tag: the most frequent tag of its captions.
        fit: what of it fits FLUX.1 and its text encoders.
        refused: why it cannot be used; None if it can.
    """

    trainer: str
    model: str | None
    kinds: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    layers: Mapping[str, int]
    tag: str | None
    fit: Fit
    refused: str | None

    def lines(self) -> list[str]:
        """Return the lines of a report."""
        found = [
            f"trainer: {self.trainer}",
            f"family: {self.fit.family.name}",
            f"model: {self.model or 'not known'}",
            f"kind: {counted(self.kinds) or 'none that is known'}",
            f"rank: {counted(self.ranks) or 'none'}",
            f"alpha: {counted(self.alphas) or 'none in the file, so it is the rank'}",
        ]
        if self.refused is None:
            layers = ", ".join(f"{count} in {part}" for part, count in self.layers.items())
            found += [f"layers: {sum(self.layers.values())} ({layers})"]
            found += describe(self.fit, has_clip=True)
        if self.tag:
            found.append(f"most frequent tag: {self.tag}")
        found += [f"refused: {self.refused}"] if self.refused else []
        return [one_line(line, _LONGEST) for line in found]  # names are a stranger's

    def table(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "trainer": self.trainer,
            "family": self.fit.family.name,
            "model": self.model,
            "kinds": dict(self.kinds),
            "ranks": {str(rank): count for rank, count in self.ranks.items()},
            "alphas": {f"{alpha:g}": count for alpha, count in self.alphas.items()},
            "keys": self.fit.keys,
            "matched": self.fit.matched,
            "weights": self.fit.patched,
            "layers": dict(self.layers),
            "not_matched": [*self.fit.unread, *self.fit.text] if self.refused is None else [],
            "wrong_shape": list(self.fit.misfits),
            "notes": list(self.fit.notes),
            "tag": self.tag,
            "refused": self.refused,
        }


def inspect(path: Path) -> Inspection:
    """Read a file and compare it with FLUX.1.

    Raises:
        BadFileError: it is no sound safetensors file.
        OSError: it cannot be read.
    """
    head = header.read(path)
    metadata, fit = head.metadata, Fit.of(head.tensors)
    modules: dict[str, Module] = {}
    changes, refused = Changes(), None
    try:
        refuse_numbers(path.name, head.tensors)
        raw = load_file(path)
        modules = modules_of(path.name, raw)
        file = checked(path, raw, modules, metadata)
        changes = changes_to(path.name, modules.values(), key_map(), shapes(), _as_it_is)
        fit = changes.result(file.fit, changes.patches)
        if not changes.patches:
            refused = refusal(path.name, fit, has_clip=True)
    except LoraError as error:
        refused = str(error)
    return Inspection(
        trainer=trainer_of(metadata, config=config_of(path) is not None),
        model=_model(fit, modules, metadata),
        kinds=_most(_kinds(modules.values(), dylora=block_of(metadata) is not None)),
        ranks=_most(_ranks(modules.values())),
        alphas=_most(_alphas(modules.values())),
        layers=_layers(changes),
        tag=frequent_tag(metadata),
        fit=fit,
        refused=refused,
    )


def _model(fit: Fit, modules: Mapping[str, Module], metadata: Mapping[str, str]) -> str | None:
    other = other_model_of(fit, modules, metadata)
    if other is not None:
        return other
    if fit.misfits and not fit.patched:
        return None
    return FLUX if modules.keys() & key_map().keys() else None


def _as_it_is(kind: Kind, _: Mapping[str, Tensor]) -> str:
    return kind.name


def _kinds(modules: Iterable[Module], *, dylora: bool) -> Iterator[str]:
    for module in modules:
        kind = kind_of(module)
        if kind is None:
            continue
        name = _KINDS[kind.name]
        if kind.name == "oft" and module.parts["oft_blocks"].ndim == 4:
            name = "BOFT"
        elif kind.name == "lora" and dylora:
            name = "DyLoRA"
        if not module.parts.keys() & set(MAGNITUDES):
            yield name
        else:
            yield "DoRA" if name == "LoRA" else f"{name} with DoRA's magnitudes"


def _ranks(modules: Iterable[Module]) -> Iterator[int]:
    for module in modules:
        slot = next((slot for slot in RANKED if slot in module.parts), None)
        if slot is not None and module.parts[slot].ndim:
            yield len(module.parts[slot])
        elif _GLORA in module.parts:
            yield min(module.parts[_GLORA].shape, default=0)


def _alphas(modules: Iterable[Module]) -> Iterator[float]:
    for module in modules:
        alpha = module.parts.get("alpha")
        if alpha is not None and alpha.numel() == 1 and kind_of(module) is not None:
            yield float(alpha)


def _layers(changes: Changes) -> dict[str, int]:
    """Return how many layers are changed; a layer's weight and bias, and all its rows, are one."""
    weights = {Place(key).weight for key in changes.patches}
    found = {weight.rpartition(".")[0]: part_of(weight) for weight in weights}
    return _most(found.values())


def _most(values: Iterable[Any]) -> dict[Any, int]:
    """Count values; the most frequent are first, in a lasting order."""
    counts = Counter(values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))


def counted(counts: Mapping[Any, int]) -> str:
    """Return values for a line; how often each comes only where there are several."""
    texts = {value if isinstance(value, str) else f"{value:g}": n for value, n in counts.items()}
    if len(texts) == 1:
        return next(iter(texts))
    return ", ".join(f"{text} ({count})" for text, count in texts.items())
