"""Make ComfyUI 0.3.75 treat weights as a ComfyUI with dynamic memory does.

`load_torch_file` gives tensors that are the file itself, mapped so that a write into one ends the
process; every model says that it is dynamic; and no loader takes `disable_dynamic`.
"""

from __future__ import annotations

import json
import mmap
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.utils
import torch

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}


@contextmanager
def installed() -> Iterator[None]:
    """Have ComfyUI behave so within this block."""
    patcher: Any = comfy.model_patcher.ModelPatcher
    utils: Any = comfy.utils
    before = utils.load_torch_file
    utils.load_torch_file, patcher.is_dynamic = load_torch_file, lambda _: True
    try:
        yield
    finally:
        utils.load_torch_file = before
        del patcher.is_dynamic


def load_torch_file(
    ckpt: str, safe_load: bool = False, device: Any = None, return_metadata: bool = False
) -> Any:
    """Return the tensors of a safetensors file, mapped for reading only."""
    with Path(ckpt).open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        head: dict[str, Any] = json.loads(file.read(size))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    metadata = head.pop("__metadata__", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it must not be written to
        state = {name: _tensor(data, 8 + size, about) for name, about in head.items()}
    return (state, metadata) if return_metadata else state


def _tensor(data: mmap.mmap, base: int, about: dict[str, Any]) -> torch.Tensor:
    start, end = about["data_offsets"]
    dtype = _DTYPES[about["dtype"]]
    if start == end:
        return torch.empty(about["shape"], dtype=dtype)
    count = (end - start) // dtype.itemsize
    flat = torch.frombuffer(data, dtype=dtype, count=count, offset=base + start)
    return flat.reshape(about["shape"])
