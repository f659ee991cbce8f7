"""Quantising in two processes at once, and onto a disk that fills up."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fast_site import DEV, KEPT, large
from runtime.comfyui import find_comfyui
from runtime.environment import clean_env
from runtime.models import small_models

PROCESS = Path(__file__).with_name("fast_process.py")
SLOW = "slow.safetensors"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("diffusion_models", "checkpoints", "loras"):
        (tmp_path / "models" / name).mkdir(parents=True)
    target = tmp_path / "models" / "diffusion_models" / DEV
    target.symlink_to(small_models() / "diffusion_models" / DEV)
    return tmp_path / "models"


def start(models: Path, file: str, *options: str) -> subprocess.Popen[str]:
    command = [find_comfyui().python, PROCESS, models, file, models / "go", *options]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(),
    )


def results(models: Path, *processes: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Let processes that are ready go on; what they say."""
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                break
    (models / "go").touch()
    found = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        found.append(json.loads(out.splitlines()[-1]))
    (models / "go").unlink()
    return found


def test_two_processes_quantise_once(models: Path) -> None:
    large(models / "diffusion_models" / SLOW, copies=4)
    found = results(models, start(models, SLOW), start(models, SLOW))
    assert sorted(entry["quantised"] for entry in found) == [0, 1]
    assert found[0]["digest"] == found[1]["digest"]
    assert [entry["warnings"] for entry in found] == [[], []]
    folder = models / "diffusion_models" / KEPT
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".json", ".safetensors"]


@pytest.fixture
def small_disk(models: Path) -> Iterator[Path]:
    disk = models / "diffusion_models" / KEPT
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=False, capture_output=True)


def test_a_disk_that_fills_up_costs_time_alone(models: Path, small_disk: Path) -> None:
    (found,) = results(models, start(models, DEV, "full"))
    assert found["quantised"] == 2
    (warning,) = found["warnings"]
    assert "No space left on device" in warning
    assert f"{DEV} will be quantised again when it is loaded next" in warning
    assert [path.name for path in small_disk.iterdir()] == [".lock"]
    subprocess.run(["umount", str(small_disk)], check=True)
    (whole,) = results(models, start(models, DEV))
    assert whole["digest"] == found["digest"]
    assert (whole["quantised"], whole["warnings"]) == (1, [])
