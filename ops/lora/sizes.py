"""Which weights a module's change fits: every way to write one has a size that can be told.

Where a size is another one, the core leaves the weight as it is, and says so in its log only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Final

from torch import Tensor

from .parts import MAGNITUDES, Kind, Module, kind_of, slots_of

Parts = Mapping[str, Tensor]
Size = tuple[int, ...]

_LOKR_SIDES: Final = ("lokr_w1", "lokr_w2")


def misfit(kind: Kind, parts: Parts, wanted: Size) -> str | None:
    """Return how a module's change differs from its weight; None if it fits.

    Args:
        kind: how it is written.
        parts: its tensors by their slots; those that the kind needs are there.
        wanted: the shape of the weight, or of those of its rows that are meant.
    """
    return _CHECKS[kind.name](parts, wanted) or _magnitudes(parts, wanted)


def sizes_of(modules: Iterable[Module]) -> dict[str, tuple[int, int]]:
    """Return [rows, columns] of the weights that modules change, by their names.

    What is turned (OFT) or written in GLoRA's four factors does not tell them here.
    """
    found: dict[str, tuple[int, int]] = {}
    for module in modules:
        kind = kind_of(module)
        size = None if kind is None else _SIZES.get(kind.name)
        if kind is not None and size is not None and slots_of(module, kind) is not None:
            found[module.name] = size(module.parts)
    return {name: (rows, columns) for name, (rows, columns) in found.items() if columns}


def bias_misfit(change: Tensor, wanted: Size) -> str | None:
    """Return how the change of a bias differs from it; None if it fits."""
    return _differ(tuple(change.shape), wanted)


def magnitude_axis(scale: Tensor, wanted: Size) -> int | None:
    """Return what DoRA's magnitudes are of: 0 for rows, 1 for columns; None if for neither.

    Args:
        scale: [rows], [rows,1] or [1,columns].
        wanted: the shape of the weight.
    """
    rows, columns = _matrix(wanted)
    if scale.ndim and scale.shape[0] == rows == scale.numel():
        return 0
    return 1 if scale.ndim > 1 and scale.shape[0] == 1 and scale.numel() == columns else None


def _magnitudes(parts: Parts, wanted: Size) -> str | None:
    for slot in MAGNITUDES:
        scale = parts.get(slot)
        if scale is not None and (len(wanted) < 2 or magnitude_axis(scale, wanted) is None):
            return f"magnitudes {_times(tuple(scale.shape))} for {_times(wanted)}"
    return None


def _lora(parts: Parts, wanted: Size) -> str | None:
    pair = parts["up"], parts["down"]
    return _convolution(parts, "mid") or _ranks(*pair) or _differ(_product(*pair), _matrix(wanted))


def _loha(parts: Parts, wanted: Size) -> str | None:
    for number in "12":
        pair = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        problem = _matrices(*pair) or _ranks(*pair) or _differ(_product(*pair), _matrix(wanted))
        if problem is not None:
            return problem
    return _convolution(parts, "hada_t1")


def _lokr(parts: Parts, wanted: Size) -> str | None:
    for side in _LOKR_SIDES:
        whole = parts.get(side)
        if whole is not None:
            problem = _matrices(whole)
        else:
            pair = parts[f"{side}_a"], parts[f"{side}_b"]
            problem = _matrices(*pair) or _ranks(*pair)
        if problem is not None:
            return problem
    return _convolution(parts, "lokr_t2") or _differ(_kronecker(parts), _matrix(wanted))


def _kronecker(parts: Parts) -> tuple[int, int]:
    rows, columns = 1, 1
    for side in _LOKR_SIDES:
        whole = parts.get(side)
        made = _flat(whole) if whole is not None else _pair(parts, f"{side}_a", f"{side}_b")
        rows, columns = rows * made[0], columns * made[1]
    return rows, columns


def _glora(parts: Parts, wanted: Size) -> str | None:
    """W + W a1 a2 + b1 b2; the first versions of LyCORIS wrote each pair the other way round."""
    height, width = _matrix(wanted)
    a1, a2, b1, b2 = (_flat(parts[name]) for name in ("a1", "a2", "b1", "b2"))
    for found in ([a1, a2, b1, b2], [a2, a1, b2, b1]):
        rank = found[0][1]
        if found == [(width, rank), (rank, width), (height, rank), (rank, width)]:
            return _matrices(*(parts[name] for name in ("a1", "a2", "b1", "b2")))
    return f"factors {', '.join(map(_times, (a1, a2, b1, b2)))} for {_times(wanted)}"


def _oft(parts: Parts, wanted: Size) -> str | None:
    """Blocks of rows are turned, [count,size,size]; BOFT's are [times,count,size,size]."""
    shape, height = tuple(parts["oft_blocks"].shape), wanted[0]
    problem = f"blocks {_times(shape)} for {height} rows"
    if len(shape) not in (3, 4) or shape[-1] != shape[-2] or shape[-3] * shape[-1] != height:
        return problem
    if len(shape) == 4 and (shape[-1] % 2 or height % (shape[-1] // 2 * 2 ** shape[0])):
        return problem
    rescale = parts.get("rescale")
    if rescale is None or tuple(rescale.shape) in ((height, *[1] * (len(wanted) - 1)), (1,)):
        return None
    return f"rescale {_times(tuple(rescale.shape))} for {height} rows"


def _whole(parts: Parts, wanted: Size) -> str | None:
    return _differ(tuple(_said(parts).shape), wanted)


def _said(parts: Parts) -> Tensor:
    return next(parts[name] for name in ("diff", "w_norm", "set_weight") if name in parts)


_CHECKS: Final[Mapping[str, Callable[[Parts, Size], str | None]]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "oft": _oft,
    "diff": _whole,
    "set": _whole,
}


_SIZES: Final[Mapping[str, Callable[[Parts], tuple[int, int]]]] = {
    "lora": lambda parts: _pair(parts, "up", "down"),
    "loha": lambda parts: _pair(parts, "hada_w1_a", "hada_w1_b"),
    "lokr": _kronecker,
    "diff": lambda parts: _flat(_said(parts)),
    "set": lambda parts: _flat(_said(parts)),
}


def _flat(tensor: Tensor) -> tuple[int, int]:
    """Return [rows, columns] of a factor, a 1x1 convolution's too; what is none has no columns."""
    shape = tuple(tensor.shape)
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (tensor.numel(), 0)


def _matrices(*tensors: Tensor) -> str | None:
    """Of these kinds the core takes matrices alone."""
    odd = next((tensor for tensor in tensors if tensor.ndim != 2), None)
    return None if odd is None else f"{_times(tuple(odd.shape))} where a matrix belongs"


def _ranks(first: Tensor, second: Tensor) -> str | None:
    inner, also = _flat(first)[1], _flat(second)[0]
    return None if inner == also else f"ranks {inner} and {also}"


def _product(first: Tensor, second: Tensor) -> tuple[int, int]:
    return _flat(first)[0], _flat(second)[1]


def _pair(parts: Parts, first: str, second: str) -> tuple[int, int]:
    return _product(parts[first], parts[second])


def _matrix(wanted: Size) -> tuple[int, int]:
    return (wanted[0] if wanted else 0), prod(wanted[1:])


def _differ(found: Size, wanted: Size) -> str | None:
    return None if found == wanted else f"{_times(found)} instead of {_times(wanted)}"


def _convolution(parts: Parts, slot: str) -> str | None:
    return f"{slot} belongs to a convolution, and FLUX.1 has none" if slot in parts else None


def _times(shape: Size) -> str:
    return "x".join(map(str, shape)) or "one number"
