"""How a LoRA file fitted a model, and the words for it. No torch, no ComfyUI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, TypeVar

from .family import EXPECTED, UNKNOWN, Family, family_of
from .names import is_text_name

T = TypeVar("T")

_SHOWN: Final = 90
"""Most characters of a name that a message shows."""


class Reads(dict[str, T]):
    """A dict that remembers which of its values were read.

    The core says only in its log which names of a file it had no use for.
    """

    def __init__(self, state: Mapping[str, T]) -> None:
        super().__init__(state)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> T:
        value = super().__getitem__(name)
        self.read.add(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        if name not in self:
            return default
        return self[name]  # not get's own look-up, which would not be seen

    def unread(self) -> list[str]:
        """Return the names that nobody asked for, in the file's order."""
        return [name for name in self if name not in self.read]


# --- what became of a file ---


@dataclass(frozen=True)
class Fit:
    """How a file fitted a model.

    Attributes:
        family: how it names its modules.
        keys: how many tensors it has.
        originals: its own names by those that the core was given.
        unread: those that nothing in the model was found for, the text encoders' left out.
        text: those of text encoders among them.
        patched: how many weights are changed.
        misfits: weights whose shape is another, with what is wrong.
    """

    family: Family
    keys: int
    originals: Mapping[str, str]
    unread: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    patched: int = 0
    misfits: tuple[str, ...] = ()

    @property
    def matched(self) -> int:
        """How many of the file's tensors belong to something in the model."""
        return self.keys - len(self.unread) - len(self.text)

    @classmethod
    def of(cls, raw: Iterable[str], converted: Iterable[str]) -> Fit:
        """Return what is known before the core sees the file.

        Args:
            raw: the file's names.
            converted: what `convert` made of them, in the same order.
        """
        names = list(raw)
        originals = dict(zip(converted, names, strict=False))
        return cls(family_of(names), len(names), originals)

    def with_result(self, unread: Iterable[str], patched: int, misfits: Iterable[str]) -> Fit:
        """Return this with what the core did."""
        # What was added to the file's own tensors needs no mention.
        names = [name for name in unread if name in self.originals]
        return replace(
            self,
            unread=tuple(self.originals[name] for name in names if not is_text_name(name)),
            text=tuple(self.originals[name] for name in names if is_text_name(name)),
            patched=patched,
            misfits=tuple(misfits),
        )


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
    return lines


def refusal(name: str, fit: Fit) -> str:
    """Return why a file of which nothing could be applied is refused."""
    if fit.misfits:
        return (
            f"{name} is made for a model of another size: {shown(fit.misfits)}. "
            "Choose a LoRA for FLUX.1 dev or schnell."
        )
    if fit.text and not fit.unread:
        return (
            f"{name} changes only the text encoders ({len(fit.text)} keys): connect clip, "
            "or choose a LoRA that changes the model."
        )
    what = f"its names are of the family {fit.family.name}"
    if not fit.family.flux:
        what = f"it is made for {fit.family.name}, not for FLUX.1"
        if fit.family is UNKNOWN:
            what = "its names are of no known family"
    return (
        f"{name}: none of its {fit.keys} keys matches the model; {what}, "
        f"such as {shown(fit.unread)}. "
        f"Expected is a FLUX.1 LoRA of one of these families: {EXPECTED}."
    )


def shown(names: Sequence[str], limit: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    cut = [name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}..." for name in names[:limit]]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(cut) + more


def check_shape(patch: Any, shape: tuple[int, ...], rows: int | None = None) -> str | None:
    """Return how a patch's shape differs from its weight's; None if it fits or cannot be told.

    Args:
        patch: what the core made of a module's tensors: an adapter, or a difference.
        shape: of the weight.
        rows: how many of the weight's rows are meant, all if None.
    """
    wanted = (shape[0] if rows is None else rows, *shape[1:]) if shape else shape
    if isinstance(patch, tuple):
        kind, values = patch
        found = tuple(values[0].shape)
        return (
            None
            if kind != "diff" or found == wanted
            else f"{_times(found)} instead of {_times(wanted)}"
        )
    if getattr(patch, "name", "") != "lora":
        return None
    up, down, _, _, _, *reshape = patch.weights
    if any(value is not None for value in reshape):
        return None
    found = (int(up.shape[0]), prod(down.shape[1:]))
    flat = (wanted[0], prod(wanted[1:]))
    if prod(up.shape[1:]) != down.shape[0]:
        return f"ranks {prod(up.shape[1:])} and {down.shape[0]}"
    return None if found == flat else f"{_times(found)} instead of {_times(flat)}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
