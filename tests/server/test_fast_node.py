"""go_fast through a real ComfyUI: its routes, what it keeps on disk, LoRAs, cancelling."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_site import DEV, KEPT, REQUEST, Site, error, large, loader_alone
from PIL import Image
from runtime.client import ExecutionError
from runtime.comfyui import find_comfyui
from runtime.environment import ROOT
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import tracebacks
from torch import Tensor

from flux_hotswap.engine.kept import cache_bytes
from flux_hotswap.errors import SettingsError
from flux_hotswap.prediction.fill import fill_prompt

WORKFLOWS = ROOT / "workflows" / "api"
STORAGE = "int8 storage (CPU has no int8 matmul)"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ComfyServer(find_comfyui(), models=small_models()) as server:
        yield Site(server)


@pytest.fixture(scope="module")
def full(site: Site) -> Tensor:
    """What bf16 draws, here in float32."""
    return site.draw(go_fast=False)


@pytest.fixture(scope="module")
def fast(site: Site) -> Tensor:
    return site.draw()


# --- routes ---


def test_go_fast_draws_nearly_the_same(fast: Tensor, full: Tensor) -> None:
    assert 0 < error(fast, full) < 0.05


ROUTES: dict[str, tuple[dict[str, Any], str]] = {
    "on": ({}, STORAGE),
    "off": ({"go_fast": False}, "bf16 (go_fast off)"),
    "custom size": (
        {"aspect_ratio": "custom", "width": 256, "height": 256},
        "bf16 (custom size)",
    ),
    "picture": ({"image": "in.png", "prompt_strength": 0.9}, "bf16 (image input)"),
}


@pytest.mark.parametrize(("request_", "report"), ROUTES.values(), ids=list(ROUTES))
def test_the_report_says_which_route_runs(
    site: Site, request_: dict[str, Any], report: str
) -> None:
    picture = site.server.input_dir / "in.png"
    Image.linear_gradient("L").convert("RGB").save(picture)
    site.draw(workflow="flux_lora_schema", **request_)
    assert site.reports == [report]
    assert f"FLUX.1 dev runs in {report}" in site.server.log_text()
    assert site.result is not None
    (plan,) = site.result.shown("flux_hotswap_plan")
    engine, _, words = report.removesuffix(")").partition(" (")
    fast = engine != "bf16"
    assert plan["route"] == ("fast" if fast else "bf16")
    assert plan["route_reason"] == ("go_fast" if fast else words)
    shipped = json.loads((WORKFLOWS / "flux_lora_schema.json").read_text(encoding="utf-8"))
    fields = {"prompt": "a cat", "go_fast": True, **REQUEST, **request_}
    (record,) = site.client.run(fill_prompt(shipped, fields)).shown("flux_hotswap")
    assert (record["engine"], record["engine_reason"]) == (engine, words)


def test_a_new_seed_or_strength_loads_nothing(site: Site, fast: Tensor) -> None:
    """Both come through the Inputs node, behind which ComfyUI runs the loader again."""
    name = site.put_lora("one", seed=3)
    site.draw()
    before = site.times_loaded()
    drawn = [site.draw(seed=seed) for seed in (6, 7)]
    drawn += [site.draw(loras=[(name, {"scale": scale})]) for scale in (0.5, 1.0)]
    assert not any(torch.equal(one, fast) for one in drawn)
    assert torch.equal(site.draw(), fast)
    assert site.times_loaded() == before


def test_switching_the_route_loads_the_other_once(site: Site, fast: Tensor, full: Tensor) -> None:
    site.draw()
    before = (site.times_loaded(), site.times_quantised())
    assert torch.equal(site.draw(go_fast=False), full)
    assert torch.equal(site.draw(), fast)
    assert (site.times_loaded(), site.times_quantised()) == (before[0] + 2, before[1])


def test_freed_memory_is_loaded_again(site: Site, fast: Tensor) -> None:
    site.forget()
    before = site.times_loaded()
    assert torch.equal(site.draw(), fast)
    assert site.times_loaded() == before + 1


def test_a_file_that_changes_is_loaded_again(site: Site, fast: Tensor) -> None:
    path = site.models / "changing.safetensors"
    path.write_bytes((site.models / DEV).read_bytes())
    assert torch.equal(site.draw(path.name), fast)
    path.unlink()
    path.write_bytes((site.models / "flux1-schnell.safetensors").read_bytes())
    assert not torch.equal(site.draw(path.name, seed=6), fast)
    path.unlink()
    for kept in site.kept_folder.glob("changing-*"):
        kept.unlink()


# --- what is kept ---


def test_the_second_load_quantises_nothing(site: Site, fast: Tensor) -> None:
    (kept,) = site.kept
    assert kept.name.startswith("flux1-dev-int8-")
    before, changed = site.times_quantised(), kept.stat().st_mtime_ns
    used = kept.with_suffix(".json").stat().st_mtime_ns
    site.forget()
    assert torch.equal(site.draw(), fast)
    assert site.times_quantised() == before
    assert kept.stat().st_mtime_ns == changed
    assert kept.with_suffix(".json").stat().st_mtime_ns > used, "its use was not noted"


def test_what_is_kept_is_not_offered(site: Site, fast: Tensor) -> None:
    info = site.client.object_info("FluxHotswapLoader")
    assert not any(KEPT in name for name in info["input"]["required"]["dev_file"][0])


def damaged(path: Path) -> None:
    """A byte within a tensor's first block changes: the start of the data."""
    data = bytearray(path.read_bytes())
    data[8 + int.from_bytes(data[:8], "little") + 5] ^= 0x40
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zeroed_from_the_middle(path: Path) -> None:
    """As after a power cut: the size is right, the rest was never written."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def without_record(path: Path) -> None:
    path.with_suffix(".json").unlink()


def half_a_record(path: Path) -> None:
    record = path.with_suffix(".json")
    record.write_bytes(record.read_bytes()[:40])


def gone(path: Path) -> None:
    path.unlink()


FAULTS = [
    *(damaged, cut, cut_to_nothing, zeroed, zeroed_from_the_middle),
    *(without_record, half_a_record, gone),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_kept_file_is_made_again(
    site: Site, fast: Tensor, fault: Callable[[Path], None]
) -> None:
    (kept,) = site.kept
    wanted, before = kept.read_bytes(), site.times_quantised()
    # Another file in its place, so that what is mapped by the running model stays as it is.
    copy = kept.with_suffix(".copy")
    copy.write_bytes(wanted)
    copy.replace(kept)
    fault(kept)
    site.forget()
    assert torch.equal(site.draw(), fast)
    assert site.times_quantised() == before + 1
    assert kept.read_bytes() == wanted


def test_parts_of_killed_processes_are_removed(site: Site, fast: Tensor) -> None:
    (kept,) = site.kept
    left = [kept.with_suffix(".4194304.part"), site.kept_folder / "other-int8-1.2.part"]
    for path in left:
        path.write_bytes(b"0" * 1000)
    kept.unlink()
    site.forget()
    site.draw()
    assert not any(path.exists() for path in left)
    assert [path.suffix for path in sorted(site.kept_folder.iterdir())] == [
        *("", ".json", ".safetensors")
    ]


# --- where nothing can be kept ---


@pytest.fixture
def aside(site: Site, fast: Tensor) -> Iterator[Path]:
    """The folder of what is kept, out of the way for a while."""
    folder = site.kept_folder
    hidden = folder.rename(folder.with_name("hidden"))
    yield folder
    if folder.is_dir():
        folder.rmdir()
    else:
        folder.unlink(missing_ok=True)
    hidden.rename(folder)
    site.forget()


def test_a_folder_that_cannot_be_made_is_a_warning(site: Site, fast: Tensor, aside: Path) -> None:
    aside.write_text("a file in its place")
    assert_uncached(site, fast, "File exists")


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=256k", "are free"), ("size=64m,ro", "Read-only file system")],
    ids=["full", "read only"],
)
def test_a_disk_that_takes_nothing_is_a_warning(
    site: Site, fast: Tensor, aside: Path, options: str, words: str
) -> None:
    aside.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(aside)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        assert_uncached(site, fast, words)
    finally:
        subprocess.run(["umount", str(aside)], check=True)


def assert_uncached(site: Site, fast: Tensor, words: str) -> None:
    before, length = site.times_quantised(), len(site.server.log_text())
    site.forget()
    assert torch.equal(site.draw(), fast)
    assert site.times_quantised() == before
    log = site.server.log_text()[length:]
    assert "flux1-dev.safetensors will be quantised again when it is loaded next" in log
    assert words in log


def test_a_size_of_nonsense() -> None:
    """A size of 0, which keeps nothing: see the server without metadata in test_record.py."""
    with pytest.raises(SettingsError, match="FLUX_HOTSWAP_INT8_CACHE is '12 parsecs'"):
        cache_bytes("12 parsecs")


# --- LoRAs ---


def test_a_lora_with_go_fast_is_one_and_a_half_times_as_strong(site: Site) -> None:
    name = site.put_lora("one", seed=3)
    site.draw(loras=[(name, {"scale": 0.5})])
    assert site.reports[0] == STORAGE
    told = next(line for line in site.reports[1].splitlines() if line.startswith("strength"))
    assert re.fullmatch(
        r"strength: 0\.75 \(0\.5 times 1\.5 with go_fast\), of which arrives 0\.\d+ as on the "
        r"hosted model, [\d.]+ to [\d.]+ by layer",
        told,
    )
    by_default = site.draw(loras=[(name, {"scale": 0.5, "go_fast_lora": "whole"})])
    assert "strength: 0.75 (0.5 times 1.5 with go_fast)" in site.reports[1].splitlines()
    asked = site.draw(
        loras=[(name, {"scale": 0.75, "go_fast_multiplier": 1.0, "go_fast_lora": "whole"})]
    )
    assert "strength: 0.75" in site.reports[1].splitlines()
    assert torch.equal(by_default, asked)
    site.draw(loras=[(name, {"scale": 0.5})], go_fast=False)
    assert "strength: 0.5" in site.reports[1].splitlines()


def test_a_lora_draws_what_it_draws_in_bf16(site: Site, fast: Tensor, full: Tensor) -> None:
    used = [
        (
            site.put_lora("one", seed=3),
            {"scale": 1.0, "go_fast_multiplier": 1.0, "go_fast_lora": "whole"},
        ),
        (
            site.put_lora("two", seed=4),
            {"scale": -0.5, "go_fast_multiplier": 1.0, "go_fast_lora": "whole"},
        ),
    ]
    for count in (1, 2):
        wanted = site.draw(loras=used[:count], go_fast=False)
        made = site.draw(loras=used[:count])
        assert error(made, wanted) < 1.3 * error(fast, full)
        assert error(wanted, full) > 5 * error(fast, full), "the LoRA does too little to tell"


def test_without_the_lora_the_picture_is_the_one_before(site: Site, fast: Tensor) -> None:
    name = site.put_lora("one", seed=3)
    assert not torch.equal(site.draw(loras=[(name, {})]), fast)
    assert torch.equal(site.draw(), fast)


# --- cancelled and killed ---


@pytest.fixture
def slow(site: Site) -> Iterator[str]:
    """A file that takes some seconds to quantise."""
    path = site.models / "slow.safetensors"
    large(path, copies=16)
    yield path.name
    path.unlink()
    for kept in site.kept_folder.glob("slow-*"):
        kept.unlink()


def test_cancelling_leaves_nothing_half_written(site: Site, slow: str) -> None:
    seen: list[tuple[int, int]] = []

    def cancel(node: str, done: int, total: int) -> None:
        if done and total > 10**6:
            if not seen:
                site.client.interrupt()
            seen.append((done, total))

    prompt = loader_alone(slow)
    with pytest.raises(ExecutionError) as stopped:
        site.client.run(prompt, on_progress=cancel)
    assert stopped.value.interrupted
    assert seen[-1][0] < seen[-1][1], "it was quantised to the end"
    assert not list(site.kept_folder.glob("slow-*"))
    assert not list(site.kept_folder.glob("*.part"))
    site.client.run(prompt)
    assert len(list(site.kept_folder.glob("slow-*.safetensors"))) == 1


def test_nothing_was_raised(site: Site) -> None:
    """The last test: whatever happened above, our code handled it."""
    ours = [
        block
        for block in tracebacks(site.server.log_text())
        if any(word in block for word in ("int8", "kept", "checkpoint"))
    ]
    assert ours == []
