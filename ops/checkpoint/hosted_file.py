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
from .sizes import DOUBLE_BLOCKS, FLUX1, SINGLE_BLOCKS, Sizes

DATA: Final = ".float8_data"
"""No other format has this end of a name."""
SCALES: Final = ("scale", "scale_reciprocal", "input_scale", "input_scale_reciprocal")


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
    if known is None or tuple(known.shape) != (FLUX1.hidden,):
        return ""
    starts = {".".join(name.split(".")[:2]) for name in tensors}
    counts = {"double_blocks": DOUBLE_BLOCKS, "single_blocks": SINGLE_BLOCKS}
    blocks = (f"{kind}.{index}" for kind, count in counts.items() for index in range(count))
    return next((block for block in blocks if block not in starts), "")


def _wanted(tensors: Mapping[str, Entry], file: str) -> Iterator[Wanted]:
    names = names_of(tensors)
    sizes = _sizes_of(tensors, file)
    for name in names.outside:
        rows, columns = sizes.outside(name)
        yield Wanted(f"{name}.weight", "BF16", (rows, columns))
        yield Wanted(f"{name}.bias", "BF16", (rows,))
    for name in names.norms:
        yield Wanted(f"{name}.scale", "BF16", (sizes.head,))
    for name in names.linears:
        rows, columns = sizes.in_block(name)
        yield Wanted(f"{name}.weight", "BF16", (1,))
        yield Wanted(f"{name}{DATA}", "F8_E4M3", (rows, columns))
        yield Wanted(f"{name}.bias", "BF16", (rows,))
        yield from (Wanted(f"{name}.{scale}", "F32", ()) for scale in SCALES)


def _sizes_of(tensors: Mapping[str, Entry], file: str) -> Sizes:
    norm = "double_blocks.0.img_attn.norm.query_norm.scale"
    hidden, patch = _shape(tensors, "img_in.weight", 2, file)
    _, text = _shape(tensors, "txt_in.weight", 2, file)
    _, pooled = _shape(tensors, "vector_in.in_layer.weight", 2, file)
    (head,) = _shape(tensors, norm, 1, file)
    return Sizes(hidden, patch, text, pooled, head)


def _shape(tensors: Mapping[str, Entry], name: str, sides: int, file: str) -> tuple[int, ...]:
    found = tensors.get(name)
    if found is None or len(found.shape) != sides:
        raise CheckpointError(
            f"{file} is no whole FLUX.1 file of the hosted fast engine: {name} is missing or has "
            "another shape. Download it again, or use another file"
        )
    return found.shape
