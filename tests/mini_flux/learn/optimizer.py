"""Muon: momentum whose matrices are made orthogonal before they are applied.

The polar factor comes from Newton-Schulz steps on the small Gram matrix, in float32: torch's own
works on the whole matrix in bfloat16, which is slow on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic, from Keller Jordan's Muon."""

_STEPS = 5


def polar(matrices: Tensor) -> Tensor:
    """About the nearest orthogonal matrix of each: [K,m,n] to the same."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.transpose(1, 2)
    eye = torch.eye(len(gram[0]))
    factor = eye.expand_as(gram)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_STEPS):
        square = gram @ gram
        part = a * eye + b * gram + c * square
        factor = part @ factor
        gram = part @ gram @ part
    x = factor @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """For the weights of linear layers; matrices of one shape go together."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        """`lr` means about the same as AdamW's."""
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One step."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for shape, weights in by_shape.items():
                updates = polar(
                    torch.stack([self._momentum(w, group["momentum"]) for w in weights])
                )
                size = 0.2 * max(shape) ** 0.5
                for weight, update in zip(weights, updates, strict=True):
                    weight.add_(update, alpha=-group["lr"] * size)

    def _momentum(self, weight: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[weight]
        grad = weight.grad
        assert grad is not None
        average = state.setdefault("momentum", torch.zeros_like(weight))
        average.lerp_(grad, 1 - momentum)
        return grad.lerp(average, momentum)


def for_model(parts: Iterable[nn.Module], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for part in parts:
        for name, weight in part.named_parameters():
            (inside if "blocks" in name and weight.dim() == 2 else outside).append(weight)
    adam = torch.optim.AdamW(outside, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(inside, lr), adam] if inside else [adam]


def parts(optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
    """Each by its name in a state that is kept."""
    return {f"optimizer{index}": one for index, one in enumerate(optimizers)}


def step(optimizers: Iterable[torch.optim.Optimizer], weights: Iterable[nn.Parameter]) -> None:
    """One step of all, the gradient of these weights at most 1 long; none is left."""
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def set_rate(optimizers: Iterable[torch.optim.Optimizer], lr: float) -> None:
    """Set the learning rate of all."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
