"""How a LoRA file fitted a model, and the words for it. No torch, no ComfyUI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .family import EXPECTED, UNKNOWN, Family, family_of
from .names import is_text_name
from .others import no_lora

_SHOWN: Final = 90
"""Most characters of a name that a message shows."""

_FEW: Final = 3
"""Most names that it shows."""


# --- what became of a file ---


@dataclass(frozen=True)
class Fit:
    """How a file fitted a model.

    Attributes:
        family: how it names its modules.
        names: of its tensors.
        used: those that went into the change of a weight or bias; nothing else counts as matched.
        misfitting: those of changes whose shape is another than their weight's.
        patched: how many weights and biases are changed.
        misfits: weights whose shape is another, with what is wrong.
        notes: what else the user should know.
    """

    family: Family
    names: tuple[str, ...]
    used: frozenset[str] = frozenset()
    misfitting: frozenset[str] = frozenset()
    patched: int = 0
    misfits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> int:
        """How many tensors it has."""
        return len(self.names)

    @property
    def matched(self) -> int:
        """How many of its tensors changed something in the model."""
        return sum(name in self.used for name in self.names)

    @property
    def unread(self) -> list[str]:
        """Those that nothing in the model was found for, the text encoders' left out."""
        return [name for name in self._left() if not is_text_name(name)]

    @property
    def changes_text(self) -> bool:
        """Whether it changes a text encoder."""
        return any(is_text_name(name) for name in self.used)

    @property
    def text(self) -> list[str]:
        """Those of text encoders among them."""
        return [name for name in self._left() if is_text_name(name)]

    def _left(self) -> Iterator[str]:
        done = self.used | self.misfitting
        return (name for name in self.names if name not in done)

    @classmethod
    def of(cls, names: Iterable[str]) -> Fit:
        """Return what is known of a file before it meets a model."""
        known = tuple(names)
        return cls(family_of(known), known)


def describe(fit: Fit, *, has_clip: bool) -> list[str]:
    """Return the lines of a report on a LoRA that was applied."""
    lines = [
        f"keys: {fit.matched} of {fit.keys} matched ({fit.family.name}), "
        f"{fit.patched} weights changed"
    ]
    if fit.unread:
        lines.append(f"not matched: {shown(fit.unread)}")
    if fit.text and has_clip:
        lines.append(f"not matched in the text encoders: {shown(fit.text)}")
    elif fit.text:
        lines.append(f"text encoders: {len(fit.text)} keys left out, no CLIP is connected")
    if fit.misfits:
        lines.append(f"not applied, wrong shape: {shown(fit.misfits)}")
    return lines + [f"warning: {note}" for note in fit.notes]


def refusal(name: str, fit: Fit, *, has_clip: bool) -> str:
    """Return why a file of which nothing could be applied is refused, and what to do."""
    if fit.misfits:
        return (
            f"{name} is made for a model of another size: {shown(fit.misfits)}. "
            "Choose a LoRA for FLUX.1 dev or schnell."
        )
    if fit.text and not fit.unread:
        return f"{name} changes only the text encoders ({len(fit.text)} keys)" + (
            f", and the connected CLIP has none of those layers, such as {shown(fit.text)}: choose "
            "a LoRA for FLUX.1."
            if has_clip
            else ": connect clip, or choose a LoRA that changes the model."
        )
    what = no_lora(fit.names)
    if what is not None:
        return f"{name} is {what}"
    what = f"its names are of the family {fit.family.name}"
    if fit.family is UNKNOWN:
        what = "its names are of no known family"
    return (
        f"{name}: none of its {fit.keys} keys matches the model; {what}, "
        f"such as {shown(fit.unread)}. "
        f"Expected is a FLUX.1 LoRA of one of these families: {EXPECTED}."
    )


def shown(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    cut = [name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}..." for name in names[:_FEW]]
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(cut) + more
