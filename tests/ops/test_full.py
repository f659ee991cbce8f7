"""What says that memory has run out."""

from __future__ import annotations

import pytest
import torch

from flux_hotswap.ops.full import is_full

ERRORS: dict[str, tuple[BaseException, bool]] = {
    "the allocator": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB."), True),
    "the driver": (torch.AcceleratorError("CUDA error: out of memory"), True),
    "cuBLAS": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), True),
    "a processor": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
    "Python": (MemoryError(), True),
    "a kernel": (RuntimeError("no kernel image is available for execution on the device"), False),
    "a file's words": (ValueError("out of memory"), False),
    "a cancel": (KeyboardInterrupt(), False),
}


@pytest.mark.parametrize(("error", "full"), ERRORS.values(), ids=list(ERRORS))
def test_what_says_that_memory_has_run_out(error: BaseException, full: bool) -> None:
    assert is_full(error) is full


def test_torch_says_it_of_a_processor_so() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60, dtype=torch.int8)
    assert is_full(told.value)
