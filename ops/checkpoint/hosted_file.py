"""The file format of the hosted fast engine: what a FLUX.1 file in it must hold. No torch.

BFL's names without a prefix. Of a linear layer L in a block:

    L.weight                   [1] bf16, a zero that stands where the weight was
    L.float8_data              [N,K] e4m3, the weight times L.scale
    L.bias                     [N] bf16
    L.scale, L.input_scale     float32 without dimensions, and each with _reciprocal

All else is bf16. The hosted loader accepts a file without some of these and computes something
else then, so every one is required here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from ...errors import CheckpointError
from .layout import names_of

DATA: Final = ".float8_data"
"""No other format has this end of a name."""
SCALES: Final = ("scale", "scale_reciprocal", "input_scale", "input_scale_reciprocal")

FLUX_WIDTH: Final = 3072
FLUX_BLOCKS: Final = {"double_blocks": 19, "single_blocks": 38}
"""Of the published models; others of their kind can be smaller."""

_TIME: Final = 256
"""Numbers that tell a noise level or a guidance."""


class Entry(Protocol):
    """What the head of a safetensors file says of a tensor."""

    @property
    def dtype(self) -> str:
        """Its dtype, as safetensors calls it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


class Wanted(NamedTuple):
    """A tensor that must be there.

    Attributes:
        name: its name.
        dtype: as safetensors calls it.
        shape: its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


def is_hosted_file(names: Collection[str]) -> bool:
    """Whether these are the names of a file of the hosted fast engine."""
    return any(name.endswith(DATA) for name in names)


def is_dev(names: Collection[str]) -> bool:
    """Whether a model with these tensors is told the guidance, as dev is and schnell is not."""
    return any(name.startswith("guidance_in.") for name in names)


def check(tensors: Mapping[str, Entry], file: str) -> None:
    """Check that a file holds all that it must, in the right shapes and dtypes.

    Args:
        tensors: what the head of the file says.
        file: its name, for the error.

    Raises:
        CheckpointError: something is missing, or of another shape or dtype.
    """
    if missing := _missing_block(tensors):
        raise CheckpointError(
            f"{file} is no whole FLUX.1 file of the hosted fast engine: {missing} is missing. "
            "Download it again, or use another file"
        )
    for wanted in _wanted(tensors, file):
        found = tensors.get(wanted.name)
        if found is None:
            raise CheckpointError(
                f"{file} is no whole FLUX.1 file of the hosted fast engine: {wanted.name} is "
                "missing. Download it again, or use another file"
            )
        if (found.dtype, tuple(found.shape)) != (wanted.dtype, wanted.shape):
            raise CheckpointError(
                f"{file} is no FLUX.1 file of the hosted fast engine: {wanted.name} is "
                f"{found.dtype} {list(found.shape)} in place of {wanted.dtype} "
                f"{list(wanted.shape)}. Download it again, or use another file"
            )


def _missing_block(tensors: Mapping[str, Entry]) -> str:
    """Return a block that FLUX.1 has and the file has nothing of; empty if there is none."""
    known = tensors.get("img_in.bias")
    if known is None or tuple(known.shape) != (FLUX_WIDTH,):
        return ""
    starts = {".".join(name.split(".")[:2]) for name in tensors}
    blocks = (f"{kind}.{index}" for kind, count in FLUX_BLOCKS.items() for index in range(count))
    return next((block for block in blocks if block not in starts), "")


def _wanted(tensors: Mapping[str, Entry], file: str) -> Iterator[Wanted]:
    names = names_of(tensors)
    sides = _Sides.of(tensors, file)
    for name in names.outside:
        rows, columns = sides.outside(name)
        yield Wanted(f"{name}.weight", "BF16", (rows, columns))
        yield Wanted(f"{name}.bias", "BF16", (rows,))
    for name in names.norms:
        yield Wanted(f"{name}.scale", "BF16", (sides.head,))
    for name in names.linears:
        rows, columns = sides.linear(name)
        yield Wanted(f"{name}.weight", "BF16", (1,))
        yield Wanted(f"{name}{DATA}", "F8_E4M3", (rows, columns))
        yield Wanted(f"{name}.bias", "BF16", (rows,))
        yield from (Wanted(f"{name}.{scale}", "F32", ()) for scale in SCALES)


class _Sides(NamedTuple):
    """The sizes that differ between FLUX.1 models; all other shapes follow from them."""

    hidden: int
    patch: int
    text: int
    pooled: int
    head: int

    @classmethod
    def of(cls, tensors: Mapping[str, Entry], file: str) -> _Sides:
        matrices = ("img_in", "txt_in", "vector_in.in_layer")
        found = [tensors.get(f"{name}.weight") for name in matrices]
        norm = tensors.get("double_blocks.0.img_attn.norm.query_norm.scale")
        for name, entry, sides in (*zip(matrices, found, (2, 2, 2), strict=True), ("", norm, 1)):
            if entry is None or len(entry.shape) != sides:
                what = (
                    f"{name}.weight" if name else "double_blocks.0.img_attn.norm.query_norm.scale"
                )
                raise CheckpointError(
                    f"{file} is no whole FLUX.1 file of the hosted fast engine: {what} is missing "
                    "or has another shape. Download it again, or use another file"
                )
        (hidden, patch), (_, text), (_, pooled) = (entry.shape for entry in found if entry)
        return cls(hidden, patch, text, pooled, norm.shape[0] if norm else 0)

    def outside(self, name: str) -> tuple[int, int]:
        """Return the shape of a linear layer before or behind the blocks."""
        if name.endswith(".in_layer"):
            return self.hidden, self.pooled if name.startswith("vector_in") else _TIME
        shapes = {
            "img_in": (self.hidden, self.patch),
            "txt_in": (self.hidden, self.text),
            "final_layer.linear": (self.patch, self.hidden),
            "final_layer.adaLN_modulation.1": (2 * self.hidden, self.hidden),
        }
        return shapes.get(name, (self.hidden, self.hidden))

    def linear(self, name: str) -> tuple[int, int]:
        """Return the shape of a linear layer in a block."""
        rows, columns = _TIMES_HIDDEN[name.split(".", 2)[2]]
        return rows * self.hidden, columns * self.hidden


_TIMES_HIDDEN: Final = {
    **{
        f"{stream}_{name}": sides
        for stream in ("img", "txt")
        for name, sides in (
            ("mod.lin", (6, 1)),
            ("attn.qkv", (3, 1)),
            ("attn.proj", (1, 1)),
            ("mlp.0", (4, 1)),
            ("mlp.2", (1, 4)),
        )
    },
    "modulation.lin": (3, 1),
    "linear1": (7, 1),
    "linear2": (1, 5),
}
"""Rows and columns of the linear layers in blocks, in multiples of the model's width."""
