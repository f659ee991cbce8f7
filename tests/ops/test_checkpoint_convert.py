"""A checkpoint to int8, a few rows at a time: the result, its file, its memory, its refusals."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flux_files import LAYOUTS, PREFIX, laid_out, tiny, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flux_hotswap.errors import CheckpointError
from flux_hotswap.ops.checkpoint import convert
from flux_hotswap.ops.checkpoint.convert import (
    FileSink,
    MemorySink,
    Source,
    plan,
    quantisation_metadata,
    quantised,
)
from flux_hotswap.ops.checkpoint.layout import is_block_linear, is_modulation, targets
from flux_hotswap.ops.int8 import dequantise, group_of, quantise

CPU = torch.device("cpu")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
State = dict[str, Tensor]


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def targets_of(source: Source) -> list[Any]:
    return targets({name: entry.shape for name, entry in source.tensors.items()})


def run(source: Source, sink: Any, *, modulation: bool = False, tell: Any = silent) -> None:
    convert.convert(
        source, targets_of(source), sink, modulation=modulation, device=CPU, on_progress=tell
    )


def in_memory(source: Source, *, modulation: bool = False, tell: Any = silent) -> State:
    sink = MemorySink(plan(targets_of(source), modulation=modulation))
    run(source, sink, modulation=modulation, tell=tell)
    return sink.state


def to_file(source: Source, path: Path, metadata: dict[str, str] | None = None) -> Path:
    made = plan(targets_of(source), modulation=False)
    with path.open("wb", buffering=0) as file:
        run(source, FileSink(file, made, metadata or {}))
    return path


def directly(state: State, *, modulation: bool) -> State:
    """What is wanted: whole tensors through `quantise`."""
    made: State = {}
    for name, tensor in state.items():
        if is_block_linear(name) and (modulation or not is_modulation(name)):
            made[name], made[f"{name}_scale"] = quantise(tensor.float(), group_of(tensor.shape[1]))
        else:
            made[name] = tensor.to(torch.bfloat16)
    return made


def assert_same(made: State, wanted: State) -> None:
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert made[name].dtype == tensor.dtype, name
        assert made[name].shape == tensor.shape, name
        # As bytes: a zero keeps its sign.
        assert torch.equal(made[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.parametrize("modulation", [False, True], ids=["modulation bf16", "modulation int8"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_result_is_that_of_whole_tensors(
    tmp_path: Path, layout: str, dtype: torch.dtype, modulation: bool
) -> None:
    state = tiny(dtype=dtype)
    source = write(laid_out(state, layout), tmp_path / "a.safetensors")
    made = in_memory(source, modulation=modulation)
    assert_same(made, directly(state, modulation=modulation))


@pytest.mark.parametrize("chunk", [1, 64, 1000, 10**9])
@pytest.mark.parametrize("layout", ["BFL", "diffusers"])
def test_the_size_of_the_reads_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, chunk: int
) -> None:
    state = tiny(shrink=16)
    source = write(laid_out(state, layout), tmp_path / "a.safetensors")
    monkeypatch.setattr(convert, "CHUNK", chunk)
    assert_same(in_memory(source), directly(state, modulation=False))


def test_fp16_that_needs_small_scales(tmp_path: Path) -> None:
    """The scales of fp16's smallest numbers are below its range."""
    state = tiny(dtype=torch.float16)
    name = "double_blocks.0.img_attn.qkv.weight"
    state[name] *= 1e-3
    state[name][3] = torch.tensor(2.0**-24, dtype=torch.float16)
    made = in_memory(write(state, tmp_path / "a.safetensors"))
    group = group_of(state[name].shape[1])
    real = dequantise(made[name], made[f"{name}_scale"], group)
    torch.testing.assert_close(real[3], state[name][3].float(), rtol=0.02, atol=0)


# --- the file ---


def test_the_file_holds_what_memory_would(tmp_path: Path) -> None:
    source = write(tiny(), tmp_path / "a.safetensors")
    path = to_file(source, tmp_path / "b.safetensors")
    assert_same(load_file(path), in_memory(source))


def test_metadata_is_comfyuis(tmp_path: Path) -> None:
    source = write(laid_out(tiny(), "all in one"), tmp_path / "a.safetensors")
    chosen = quantised(targets_of(source), modulation=False)
    metadata = {"format": "pt", "_quantization_metadata": quantisation_metadata(chosen)}
    path = to_file(source, tmp_path / "b.safetensors", metadata)
    with safe_open(path, "pt") as file:
        found = file.metadata()
        names = set(file.keys())
    layers = json.loads(found["_quantization_metadata"])["layers"]
    scaled = {name.removesuffix(".weight_scale") for name in names if name.endswith("_scale")}
    assert layers.keys() == scaled
    assert len(layers) == 8 * 2 + 2 * 2
    widths = {name: tensor.shape[1] for name, tensor in tiny().items() if tensor.ndim == 2}
    for name, told in layers.items():
        group = group_of(widths[f"{name}.weight"])
        assert told == {
            "format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group
        }  # fmt: skip
    assert not any(name.startswith(PREFIX) for name in names)


def test_order_and_alignment(tmp_path: Path) -> None:
    source = write(tiny(), tmp_path / "a.safetensors")
    path = to_file(source, tmp_path / "b.safetensors", {"format": "pt"})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert (8 + length) % 64 == 0
    document = json.loads(data[8 : 8 + length])
    del document["__metadata__"]
    sizes = {"I8": 1, "BF16": 2, "F32": 4}
    order = [entry["dtype"] for entry in document.values()]
    assert order == sorted(order, key=list(sizes).index), "int8, bf16, scales"
    position = 0
    for name, entry in document.items():
        start, stop = entry["data_offsets"]
        assert start == position
        assert start % (16 if entry["dtype"] == "I8" else sizes[entry["dtype"]]) == 0, name
        assert stop - start == math.prod(entry["shape"]) * sizes[entry["dtype"]]
        position = stop
    assert len(data) == 8 + length + position


class ShortWrites(io.RawIOBase):
    """A file that takes a part of what it is given, as a disk that is nearly full does."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data)[:777]
        self.data += taken
        return len(taken)


def test_short_writes_lose_nothing(tmp_path: Path) -> None:
    source = write(tiny(shrink=16), tmp_path / "a.safetensors")
    wanted = to_file(source, tmp_path / "b.safetensors").read_bytes()
    file: Any = ShortWrites()
    run(source, FileSink(file, plan(targets_of(source), modulation=False), {}))
    assert bytes(file.data) == wanted


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to write to")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    source = write(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", 0) as file:
        run(source, FileSink(file, plan(targets_of(source), modulation=False), {}))


# --- refusals ---

SPOTS = {
    "a weight": "single_blocks.1.linear1.weight",
    "a bias": "single_blocks.1.linear1.bias",
    "an embedder": "img_in.weight",
    "the last": "final_layer.adaLN_modulation.1.weight",
}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("name", SPOTS.values(), ids=list(SPOTS))
def test_what_is_not_finite_is_named(
    tmp_path: Path, name: str, dtype: torch.dtype, odd: float
) -> None:
    state = tiny(shrink=16, dtype=dtype)
    state[name].view(-1)[-1] = odd
    source = write(state, tmp_path / "mine.safetensors")
    words = rf"mine\.safetensors is damaged: {name} holds NaN or infinity; download it again"
    with pytest.raises(CheckpointError, match=words):
        in_memory(source)


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    """It was whole when its head was read."""
    source = write(tiny(), tmp_path / "mine.safetensors")
    os.truncate(source.path, source.path.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"mine\.safetensors ends early; download it again"):
        in_memory(source)


def test_a_dtype_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    state = tiny()
    state["img_in.bias"] = state["img_in.bias"].to(torch.int32)
    with pytest.raises(CheckpointError, match=r"img_in\.bias is I32; choose a file in bf16"):
        in_memory(write(state, tmp_path / "a.safetensors"))


# --- progress ---


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = write(laid_out(tiny(), "all in one"), tmp_path / "a.safetensors")
    in_memory(source, tell=lambda *event: seen.append(event))
    total = sum(tensor.nbytes for tensor in tiny().values())
    assert {event[1] for event in seen} == {total}
    done = [event[0] for event in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)


def test_what_progress_raises_ends_it(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        in_memory(write(tiny(), tmp_path / "a.safetensors"), tell=stop)


# --- memory ---

PROBE = """
import resource, sys
from pathlib import Path
import torch
from flux_files import source_of, tiny, write
from flux_hotswap.ops.checkpoint import convert
from test_checkpoint_convert import to_file

folder = Path(sys.argv[1])
convert.CHUNK = int(sys.argv[2])
torch.set_num_threads(1)
small = write(tiny(), folder / "small.safetensors")
big = source_of(folder / "big.safetensors")
to_file(small, folder / "out.safetensors")  # what is loaded at the first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
to_file(big, folder / "out.safetensors")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has another unit")
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_memory_is_some_chunks_whatever_the_size(tmp_path: Path, dtype: str) -> None:
    chunk = 4 * 2**20
    state = tiny(dtype=DTYPES[dtype])
    large = torch.full((20_000 if dtype == "fp32" else 40_000, 2048), 0.5, dtype=DTYPES[dtype])
    state["single_blocks.1.linear1.weight"] = large
    state["img_in.weight"] = large[: len(large) // 4].clone()
    save_file(state, tmp_path / "big.safetensors")
    size = (tmp_path / "big.safetensors").stat().st_size
    assert size > 190e6
    tests = Path(__file__).parents[1]
    paths = [str(tests / "ops"), str(tests), str(tests.parent)]
    command = [sys.executable, "-c", PROBE, str(tmp_path), str(chunk)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    more = 1024 * int(done.stdout)
    assert more < 5 * chunk, f"{more / 2**20:.0f} MB for a file of {size / 2**20:.0f}"


def test_int8_is_what_the_file_is_made_of(tmp_path: Path) -> None:
    source = write(tiny(), tmp_path / "a.safetensors")
    made = in_memory(source, modulation=True)
    count = sum(tensor.numel() for tensor in made.values() if tensor.dtype == torch.int8)
    assert count == sum(t.numel() for name, t in tiny().items() if is_block_linear(name))
