"""Memory that has run out."""

from __future__ import annotations

from typing import Final

import torch

_SIGNS: Final = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory has run out, of a card or of the machine.

    torch has a class of its own for its allocator alone. What a driver or cuBLAS says comes as a
    RuntimeError, of newer versions' AcceleratorError.
    """
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
