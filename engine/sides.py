"""Patches of the core as what runs beside a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..ops.lora.beside import Dense, Factors, Kron, Lengths, hadamard
from ..ops.lora.dora import shares
from ..ops.lora.sizes import magnitude_axis
from .rows import CHUNK, Rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Side = Factors | Kron | Dense | Lengths
DORA: Final = "flux_hotswap_dora"
"""The name of our patch for it, see `engine.relative`."""


def side_of(patch: Any, strength: float, offset: Any) -> Factors | Kron | None:
    """Return a patch as what runs beside a layer whatever its weight is; None if none does.

    Args:
        patch: as the core has it.
        strength: what it is multiplied by.
        offset: (dimension, start, length) of what it is for; None for all of the weight.
    """
    read = _READ.get(getattr(patch, "name", ""))
    if read is None or (offset is not None and offset[0] != 0):
        return None
    side = read(patch.weights, strength)
    return side if side is None or offset is None else replace(side, start=offset[1])


def sides_with(
    patch: Any, strength: float, offset: Any, rows: Rows, device: torch.device
) -> list[Side]:
    """Return any patch as what runs beside a layer of some weight.

    Args:
        patch: as the core has it.
        strength: what it is multiplied by.
        offset: (dimension, start, length) of what it is for; None for all of the weight.
        rows: of the weight.
        device: where it is computed.
    """
    return _lengthened(patch, strength, offset, rows, device) or [
        _written_out(patch, strength, offset, rows, device)
    ]


def _lengthened(
    patch: Any, strength: float, offset: Any, rows: Rows, device: torch.device
) -> list[Side]:
    """Return DoRA of rows and a pair of factors; none if it is anything else."""
    import torch

    if getattr(patch, "name", None) != DORA or (offset is not None and offset[0] != 0):
        return []
    inner, magnitude, inside = patch.weights
    pair = side_of(inner, 1.0, None)
    height, width = rows.values.shape
    start, length = (0, height) if offset is None else offset[1:]
    if not isinstance(pair, Factors) or magnitude_axis(magnitude, (length, width)) != 0:
        return []
    found: list[tuple[Tensor, Tensor]] = []
    lengths, up, down = magnitude.flatten().to(device), pair.up.to(device), pair.down.to(device)
    for at in _steps(length, width):
        weight = rows.exact(slice(start + at.start, start + at.stop), device)
        found.append(shares(weight, up[at] @ down, lengths[at], 0, strength, inside=inside))
    more, times = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return [Lengths(more.flatten(), start), Factors(pair.up * times.to(pair.up), pair.down, start)]


def _steps(height: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // width)
    for at in range(0, height, step):
        yield slice(at, min(at + step, height))


def _written_out(
    patch: Any, strength: float, offset: Any, rows: Rows, device: torch.device
) -> Dense:
    import comfy.lora
    import torch

    weight = rows.exact(slice(None), device)
    entries: Any = [(strength, patch, 1.0, offset, None)]
    change = comfy.lora.calculate_weight(entries, weight.clone(), "weight", torch.float32) - weight
    if offset is None or offset[0] != 0:
        return Dense(change.cpu())
    _, start, length = offset
    return Dense(change[start : start + length].cpu(), start)


def _matrix(tensor: Tensor) -> Tensor:
    import torch

    return tensor.flatten(start_dim=1).to(torch.float32)


def _scale(strength: float, alpha: Any, rank: int) -> float:
    return strength * (1.0 if alpha is None else float(alpha) / rank)


def _lora(weights: Sequence[Any], strength: float) -> Factors | None:
    up, down, alpha, mid, dora, *reshape = weights
    if mid is not None or dora is not None or any(value is not None for value in reshape):
        return None
    return Factors(_matrix(up) * _scale(strength, alpha, len(down)), _matrix(down))


def _loha(weights: Sequence[Any], strength: float) -> Factors | None:
    a1, b1, alpha, a2, b2, *others = weights
    if any(value is not None for value in others):
        return None
    first = _matrix(a1) * _scale(strength, alpha, len(b1)), _matrix(b1)
    return hadamard(first, (_matrix(a2), _matrix(b2)))


def _lokr(weights: Sequence[Any], strength: float) -> Kron | None:
    """Alpha counts where one of the two is in factors; where both are, by the rank of the second.

    As in the core.
    """
    left, right, alpha, left_a, left_b, right_a, right_b, *others = weights
    if any(value is not None for value in others):
        return None
    factor = strength
    for whole, b in ((left, left_b), (right, right_b)):
        factor = _scale(strength, alpha, len(b)) if whole is None else factor
    left = _matrix(left_a) @ _matrix(left_b) if left is None else _matrix(left)
    right = _matrix(right_a) @ _matrix(right_b) if right is None else _matrix(right)
    return Kron(left * factor, right)


_READ: Final[Mapping[str, Callable[[Sequence[Any], float], Factors | Kron | None]]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
}
"""By the core's names for adapters."""
