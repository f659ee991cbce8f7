"""A FLUX.1 checkpoint to int8, a few rows at a time.

Neither the source nor the result is ever in memory as a whole: rows are read, rounded and written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..int8 import group_of, quantise
from .layout import Piece, Target, is_block_linear, is_modulation

CHUNK: Final = 32 * 2**20
"""Most bytes of the source that are in memory at once, a single row apart."""

_DTYPES: Final = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_NAMES: Final = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}

_ALIGNED: Final = 64
"""The data starts at a multiple of this: kernels want weights that lie at multiples of 16."""

OnProgress = Callable[[int, int], None]
"""(bytes read, bytes in all), called between two reads; what it raises ends the conversion."""


class Entry(Protocol):
    """Where a tensor lies, as the head of a safetensors file says."""

    @property
    def dtype(self) -> str:
        """Its dtype, as safetensors calls it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def start(self) -> int:
        """Its first byte, from the start of the data."""
        ...

    @property
    def end(self) -> int:
        """The byte behind its last."""
        ...


@dataclass(frozen=True)
class Source:
    """A safetensors file whose head has been read and checked.

    Attributes:
        path: the file.
        tensors: what its head says of each tensor.
        base: where the data begins, in bytes.
    """

    path: Path
    tensors: Mapping[str, Entry]
    base: int

    def dtype(self, name: str) -> torch.dtype | None:
        """Return the dtype of a tensor; None if it cannot be quantised."""
        return _DTYPES.get(self.tensors[name].dtype)


class Sink(Protocol):
    """Takes the result, in the order of `plan`."""

    def write(self, name: str, rows: Tensor) -> None:
        """Take the next rows of a tensor, on the CPU and contiguous."""


@dataclass(frozen=True)
class Made:
    """One tensor of the result."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes of it."""
        count = self.dtype.itemsize
        for side in self.shape:
            count *= side
        return count


def quantised(targets: Iterable[Target], *, modulation: bool) -> list[Target]:
    """Return those of which the weight goes to int8.

    Args:
        targets: of the model.
        modulation: whether the modulation layers are among them.
    """
    return [
        t for t in targets if is_block_linear(t.name) and (modulation or not is_modulation(t.name))
    ]


def plan(targets: list[Target], *, modulation: bool) -> list[Made]:
    """Return the tensors of the result in their order: int8 first, scales last.

    In this order every weight is aligned, and scales are written when they are known.
    """
    chosen = quantised(targets, modulation=modulation)
    names = {target.name for target in chosen}
    kept = [Made(t.name, t.shape, torch.bfloat16) for t in targets if t.name not in names]
    weights = [Made(t.name, t.shape, torch.int8) for t in chosen]
    scales = [Made(scale_name(t.name), (t.shape[0], 1), torch.float32) for t in chosen]
    return weights + kept + scales


def scale_name(weight: str) -> str:
    """Return what the scales of a weight are called, as ComfyUI does."""
    return f"{weight}_scale"


def convert(
    source: Source,
    targets: list[Target],
    sink: Sink,
    *,
    modulation: bool,
    device: torch.device,
    on_progress: OnProgress,
) -> None:
    """Quantise a checkpoint into a sink.

    Args:
        source: bf16, fp16 or float32.
        targets: its tensors, see `layout.targets`.
        sink: takes the result.
        modulation: whether the modulation layers go to int8 too.
        device: where it is computed.
        on_progress: hears how far it is.

    Raises:
        CheckpointError: a tensor holds NaN or infinities, or is of a dtype that cannot be used.
        OSError: the file cannot be read, or the sink cannot take more.
    """
    chosen = {target.name for target in quantised(targets, modulation=modulation)}
    order = [t for t in targets if t.name in chosen] + [t for t in targets if t.name not in chosen]
    total = sum(source_bytes(source, target) for target in targets)
    done = 0
    scales: dict[str, list[Tensor]] = {}
    with source.path.open("rb", buffering=0) as file:
        for target in order:
            for rows in rows_of(file, source, target):
                on_progress(done, total)
                done += rows.nbytes
                if target.name not in chosen:
                    check_finite(source, target, rows.abs().amax())
                    sink.write(target.name, rows.to(torch.bfloat16))
                    continue
                values, scale = quantise(rows.to(device, torch.float32), group_of(rows.shape[1]))
                check_finite(source, target, scale)
                sink.write(target.name, values.cpu())
                scales.setdefault(target.name, []).append(scale.cpu())
    on_progress(total, total)
    for name, parts in scales.items():
        sink.write(scale_name(name), torch.cat(parts))


def source_bytes(source: Source, target: Target) -> int:
    """Return how many bytes are read for a tensor of the result."""
    dtype = source.dtype(target.pieces[0].name) or torch.float32
    return Made(target.name, target.shape, dtype).size


def rows_of(file: BinaryIO, source: Source, target: Target) -> Iterator[Tensor]:
    """Yield a tensor of the result in slices, in the dtype that it has in the file."""
    for piece in target.pieces:
        entry, dtype = source.tensors[piece.name], source.dtype(piece.name)
        if dtype is None:
            raise CheckpointError(
                f"{source.path.name} cannot be quantised: {piece.name} is {entry.dtype}; "
                "choose a file in bf16, fp16 or float32"
            )
        yield from _slices(file, source, piece, dtype)


def _slices(file: BinaryIO, source: Source, piece: Piece, dtype: torch.dtype) -> Iterator[Tensor]:
    entry = source.tensors[piece.name]
    height, *rest = entry.shape or (1,)
    row = Made(piece.name, tuple(rest), dtype).size
    stop = height if piece.stop is None else piece.stop
    step = max(1, CHUNK // row)
    file.seek(source.base + entry.start + piece.start * row)
    for first in range(piece.start, stop, step):
        count = min(step, stop - first)
        buffer = bytearray(count * row)
        view = memoryview(buffer)
        while view:
            got = file.readinto(view)  # pyright: ignore[reportAttributeAccessIssue] - raw files do
            if not got:
                raise CheckpointError(f"{source.path.name} ends early; download it again")
            view = view[got:]
        yield torch.frombuffer(buffer, dtype=dtype).reshape(count, *rest)


def check_finite(source: Source, target: Target, sizes: Tensor) -> None:
    """Refuse weights whose largest magnitudes, or what follows from them, are not finite."""
    if not torch.isfinite(sizes).all():
        raise CheckpointError(
            f"{source.path.name} is damaged: {target.name} holds NaN or infinity; "
            "download it again, or ask its author for a whole file"
        )


# --- where the result goes ---


class MemorySink:
    """Keeps the result in memory.

    Attributes:
        state: the tensors by name.
    """

    def __init__(self, made: Iterable[Made]) -> None:
        self.state = {m.name: torch.empty(m.shape, dtype=m.dtype) for m in made}
        self._filled: dict[str, int] = {}

    def write(self, name: str, rows: Tensor) -> None:
        """Take the next rows of a tensor."""
        first = self._filled.get(name, 0)
        target = self.state[name]
        if target.ndim == 0:
            target.copy_(rows.reshape(()))
            return
        target[first : first + len(rows)] = rows
        self._filled[name] = first + len(rows)


class FileSink:
    """Writes the result to a safetensors file that is open."""

    def __init__(self, file: BinaryIO, made: Iterable[Made], metadata: Mapping[str, str]) -> None:
        self._file = file
        self._write(memoryview(head(made, metadata)))

    def write(self, name: str, rows: Tensor) -> None:  # noqa: ARG002 - the order says which it is
        """Take the next rows of a tensor."""
        self._write(rows.contiguous().view(-1).view(torch.uint8).numpy().data)

    def _write(self, data: memoryview) -> None:
        # A disk that is nearly full takes a part of the bytes, and says so only the next time.
        while data:
            data = data[self._file.write(data) :]


def head(made: Iterable[Made], metadata: Mapping[str, str]) -> bytes:
    """Return the head of a safetensors file, with its length before it."""
    document: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for tensor in made:
        span = [position, position + tensor.size]
        document[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": span,
        }
        position = span[1]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def quantisation_metadata(targets: Iterable[Target]) -> str:
    """Return what tells ComfyUI which layers are quantised, and how."""
    layers = {target.name.removesuffix(".weight"): format_of(target) for target in targets}
    return json.dumps({"format_version": "1.0", "layers": layers})


def format_of(target: Target) -> dict[str, Any]:
    """Return how ComfyUI calls the format of a weight."""
    group = group_of(target.shape[1])
    rotation = {"convrot": True, "convrot_groupsize": group} if group > 1 else {}
    return {"format": "int8_tensorwise", **rotation}


def described(state: Mapping[str, Tensor], targets: Iterable[Target]) -> dict[str, Tensor]:
    """Return tensors with what ComfyUI wants beside a quantised weight that comes without a file.

    Args:
        state: the tensors.
        targets: those of which the weight is int8.
    """
    notes: dict[str, Tensor] = {}
    for target in targets:
        text = json.dumps(format_of(target)).encode()
        notes[f"{target.name.removesuffix('.weight')}.comfy_quant"] = torch.tensor(
            list(text)
        ).byte()
    return {**state, **notes}
