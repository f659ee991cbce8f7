"""What `inspect` says of LoRA files, written here in the spellings and sizes of FLUX.1."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from torch import Tensor

from flux_hotswap.errors import BadFileError
from flux_hotswap.ops.lora.flux1 import key_map, part_of, shapes
from flux_hotswap.ops.lora.inspect import inspect

TOP = Path(__file__).resolve().parents[2]
W = 3072
State = dict[str, Tensor]


def ones(*shape: int) -> Tensor:
    return torch.full(shape, 0.01)


def pair(
    module: str, rows: int, columns: int, rank: int = 4, sides: str = "lora_A lora_B"
) -> State:
    down, up = sides.split()
    return {
        f"{module}.{down}.weight": ones(rank, columns),
        f"{module}.{up}.weight": ones(rows, rank),
    }


def kohya(module: str, rows: int, columns: int, alpha: float = 2.0) -> State:
    made = pair(f"lora_{module}", rows, columns, sides="lora_down lora_up")
    return {**made, f"lora_{module}.alpha": torch.tensor(alpha)}


DIFFUSERS = {
    **pair("transformer.transformer_blocks.3.attn.to_q", W, W),
    **pair("transformer.transformer_blocks.3.attn.to_k", W, W),
    **pair("transformer.single_transformer_blocks.37.proj_mlp", 4 * W, W),
    **pair("transformer.x_embedder", W, 64, rank=8),
}
PEFT = pair("base_model.model.transformer_blocks.0.attn.to_out.0", W, W)
KOHYA = {
    **kohya("unet_double_blocks_0_img_attn_qkv", 3 * W, W),
    **kohya("unet_final_layer_linear", 64, W),
    **kohya("te1_text_model_encoder_layers_0_mlp_fc1", 3072, 768),
    **kohya("te2_encoder_block_5_layer_0_SelfAttention_q", 4096, 4096),
}
ONETRAINER = kohya("transformer_single_transformer_blocks_1_proj_out", W, 5 * W, alpha=1.0)
NATIVE = "diffusion_model.double_blocks.0.img_attn.proj"
LOKR = {
    "lycoris_transformer_blocks_0_attn_to_v.lokr_w1": ones(8, 8),
    "lycoris_transformer_blocks_0_attn_to_v.lokr_w2_a": ones(W // 8, 2),
    "lycoris_transformer_blocks_0_attn_to_v.lokr_w2_b": ones(2, W // 8),
    "lycoris_transformer_blocks_0_attn_to_v.alpha": torch.tensor(1.0),
}
XLABS = {
    "double_blocks.0.processor.qkv_lora1.down.weight": ones(16, W),
    "double_blocks.0.processor.qkv_lora1.up.weight": ones(3 * W, 16),
}
QWEN = {
    name: tensor
    for index in range(60)
    for name, tensor in pair(f"transformer.transformer_blocks.{index}.attn.to_q", 16, 16, 1).items()
}
TOOLKIT = {
    "software": json.dumps({"name": "ai-toolkit", "repo": "", "version": "0.7.8"}),
    "ss_tag_frequency": json.dumps({"1_a": {"m1x": 9, "dog": 4}, "2_b": {"dog": 6}}),
    "ss_base_model_version": "flux1",
}
SETTINGS = json.dumps({"transformer.lora_alpha": 16, "transformer.r": 4})


@dataclass(frozen=True)
class Case:
    """A file, and lines that its report has to have; `refused` is a part of why it is refused."""

    state: State
    lines: str
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    refused: str | None = None


CASES = {
    "diffusers": Case(
        DIFFUSERS,
        """trainer: diffusers
family: diffusers
model: FLUX.1
kind: LoRA
rank: 4 (3), 8 (1)
alpha: 16
layers: 3 (1 in double blocks, 1 in embedders, 1 in single blocks)
keys: 8 of 8 matched (diffusers), 3 weights changed""",
        {"lora_adapter_metadata": SETTINGS},
    ),
    "ai-toolkit": Case(
        pair("diffusion_model.double_blocks.18.txt_mlp.2", W, 4 * W, 16),
        """trainer: ai-toolkit 0.7.8
family: BFL, with diffusion_model.
model: FLUX.1
rank: 16
alpha: none in the file, so it is the rank
layers: 1 (1 in double blocks)
most frequent tag: dog""",
        TOOLKIT,
    ),
    "PEFT": Case(
        PEFT,
        """trainer: not said
family: PEFT
layers: 1 (1 in double blocks)
warning: its names are PEFT's, which keeps alpha in adapter_config.json; that is not beside the """
        "file, so alpha is taken to be the rank",
        {"format": "pt"},
    ),
    "kohya, with text encoders": Case(
        KOHYA,
        """trainer: kohya's scripts (networks.lora_flux)
family: kohya
alpha: 2
layers: 4 (1 in CLIP, 1 in T5, 1 in double blocks, 1 in last layer)
keys: 12 of 12 matched (kohya), 4 weights changed""",
        {"ss_network_module": "networks.lora_flux", "ss_base_model_version": "flux1"},
    ),
    "OneTrainer": Case(
        ONETRAINER,
        """trainer: OneTrainer
family: OneTrainer
alpha: 1
layers: 1 (1 in single blocks)""",
        {"ot_branch": "master", "ot_revision": "1"},
    ),
    "LoKr of LyCORIS": Case(
        LOKR, "family: LyCORIS\nkind: LoKr\nrank: 2\nalpha: 1\nlayers: 1 (1 in double blocks)"
    ),
    "DoRA": Case(
        {**pair(NATIVE, W, W), f"{NATIVE}.dora_scale": ones(1, W)},
        "kind: DoRA\nkeys: 3 of 3 matched (BFL, with diffusion_model.), 1 weights changed",
    ),
    "DyLoRA": Case(
        kohya("unet_double_blocks_0_img_attn_proj", W, W),
        "trainer: kohya's scripts (lycoris.kohya)\nkind: DyLoRA",
        {
            "ss_network_module": "lycoris.kohya",
            "ss_network_args": '{"algo": "dylora", "block_size": 1}',
        },
    ),
    "a whole difference": Case(
        {f"{NATIVE}.diff": ones(W, W), f"{NATIVE}.diff_b": ones(W)},
        "kind: whole difference\nrank: none\nlayers: 1 (1 in double blocks)\n"
        "keys: 2 of 2 matched (BFL, with diffusion_model.), 2 weights changed",
    ),
    "XLabs": Case(XLABS, "family: XLabs\nrank: 16\nlayers: 1 (1 in double blocks)"),
    "a part that does not fit": Case(
        {**DIFFUSERS, **pair("transformer.context_embedder", W, 64), "odd.name": ones(1)},
        """layers: 3 (1 in double blocks, 1 in embedders, 1 in single blocks)
not matched: odd.name
not applied, wrong shape: txt_in.weight (3072x64 instead of 3072x4096)""",
    ),
    "Qwen-Image": Case(QWEN, "family: diffusers\nmodel: Qwen-Image\nrank: 1", {}, "Qwen-Image"),
    "SDXL by its head": Case(
        pair(NATIVE, W, W),
        "model: SDXL",
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
        "it is made for SDXL, not for FLUX.1",
    ),
    "another size": Case(
        pair(NATIVE, 1024, 1024),
        "model: not known",
        {},
        "is made for a model of another size: double_blocks.0.img_attn.proj.weight (1024x1024 "
        "instead of 3072x3072)",
    ),
    "names of nobody": Case(
        {"a.b.c": ones(2, 2)}, "family: unknown\nmodel: not known\nkind: none", {}, "none of its 1"
    ),
    "half a pair": Case(
        {f"{NATIVE}.lora_A.weight": ones(4, W)},
        "model: FLUX.1\nkind: LoRA\nrank: 4",
        {},
        "lora_A.weight has no lora_up (or lora_B) beside it",
    ),
    "numbers that are none": Case(
        {**PEFT, f"{NATIVE}.lora_A.weight": ones(4, W) * float("nan")},
        "model: FLUX.1",
        {},
        "holds numbers that are infinite or none",
    ),
    "two names for one": Case(
        {**pair("x_embedder", W, 64), **pair("transformer.x_embedder", W, 64)},
        "kind: none that is known",
        {},
        "it names transformer.x_embedder.lora_A.weight twice",
    ),
    "a control LoRA": Case(
        pair("transformer.x_embedder", W, 128), "model: FLUX.1", {}, "needs a control image"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_report(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "some.safetensors"
    loras.write(case.state, path, case.metadata or None)
    (tmp_path / "other.safetensors").touch()
    found = inspect(path)
    lines = found.lines()
    wanted = case.lines.splitlines()
    assert [line for line in wanted if not any(told.startswith(line) for told in lines)] == []
    if case.refused is None:
        assert found.refused is None
    else:
        assert case.refused in (found.refused or "")
        assert lines[-1] == f"refused: {found.refused}"
        assert not any(line.startswith(("layers", "keys")) for line in lines)
    table = found.table()
    assert json.loads(json.dumps(table)) == table
    assert table["refused"] == found.refused


def test_settings_of_peft_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    loras.write(PEFT, path)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 32, "r": 4}')
    found = inspect(path)
    assert found.trainer == "PEFT"
    assert found.alphas == {32.0: 1}
    assert not found.fit.notes


KINDS_OF_NUMBERS = [("F4", 2), ("F6_E2M3", 3), ("F8_E8M0", 4), ("C64", 32), ("U16", 8)]


@pytest.mark.parametrize(("dtype", "size"), KINDS_OF_NUMBERS)
def test_numbers_that_no_lora_has_are_refused(tmp_path: Path, dtype: str, size: int) -> None:
    name = f"{NATIVE}.diff"
    head = json.dumps({name: {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "some.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(size))
    found = inspect(path)
    assert f"{name} holds numbers of a kind that LoRAs do not have ({dtype})" in found.lines()[-1]
    assert found.model is None


def test_every_linear_layer_of_the_blocks_in_diffusers_names(tmp_path: Path) -> None:
    """As Replicate's trainer makes it, and as the page shows it."""
    known, state = shapes(), {}
    for name, key in key_map().items():
        weight, *rows = (key,) if isinstance(key, str) else key
        if name.startswith("transformer.") and "_blocks." in name and len(known[weight]) == 2:
            height, width = known[weight]
            state |= pair(name, rows[0][2] if rows else height, width, 1)
    path = tmp_path / "some.safetensors"
    loras.write({name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, path)
    example = (TOP / "docs" / "loras.md").read_text(encoding="utf-8").splitlines()
    assert {line for line in inspect(path).lines() if line.startswith(("layers", "keys"))} == {
        line for line in example if line.startswith(("layers: ", "keys: "))
    }


def test_no_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(b"<!doctype html><title>log in</title>")
    with pytest.raises(BadFileError, match="it is a web page"):
        inspect(path)


def test_names_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    loras.write({**PEFT, "a\x1b[2Jb\nrank: 9": ones(1)}, path)
    assert "not matched: a [2Jb rank: 9" in inspect(path).lines()


def test_every_name_means_a_weight() -> None:
    known = shapes()
    for name, key in key_map().items():
        weight, *rows = (key,) if isinstance(key, str) else key
        assert weight in known, name
        if rows:
            dimension, start, length = rows[0]
            assert dimension == 0
            assert 0 <= start < start + length <= known[weight][0]
    assert {part_of(weight) for weight in known} == {
        "double blocks",
        "single blocks",
        "embedders",
        "last layer",
        "CLIP",
        "T5",
    }


# --- the command ---


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lora_fetch", "inspect", *words, "--dir", str(folder)],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command(tmp_path: Path) -> None:
    head = {**TOOLKIT, "modelspec.trigger_phrase": "m1x dog"}
    loras.write(DIFFUSERS, tmp_path / "mine.safetensors", head)
    done = command(tmp_path, "mine.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "source: mine.safetensors"
    assert "trainer: ai-toolkit 0.7.8" in lines
    assert "layers: 3 (1 in double blocks, 1 in embedders, 1 in single blocks)" in lines
    assert lines[-1] == "trigger words: m1x dog"


def test_the_command_for_programs(tmp_path: Path) -> None:
    loras.write(QWEN, tmp_path / "qwen.safetensors")
    done = command(tmp_path, "qwen.safetensors", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["source"] == "qwen.safetensors"
    assert told["model"] == "Qwen-Image"
    assert "it is made for Qwen-Image, not for FLUX.1" in told["refused"]
    assert told["layers"] == {}
    assert told["ranks"] == {"1": 60}
    page = (TOP / "docs" / "loras.md").read_text(encoding="utf-8")
    names = page.split("with these names:")[1].partition("\n")[0]
    assert names.split("`")[1::2] == list(told)


def test_without_torch_it_says_what_to_do(tmp_path: Path) -> None:
    loras.write(DIFFUSERS, tmp_path / "mine.safetensors")
    code = (
        "import os, sys\nsys.modules['torch'] = None\n"
        "from flux_hotswap.lora_fetch.__main__ import look\n"
        "from flux_hotswap.lora_fetch.cli import main\n"
        "sys.exit(main(sys.argv[1:], os.environ, look))"
    )
    words = ["inspect", "mine.safetensors", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("inspect needs torch, which this Python does not have. Run it")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = command(tmp_path, "mine.safetensors")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "mine.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
