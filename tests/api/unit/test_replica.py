"""The folder of a replica, in a place that others use as well."""

from __future__ import annotations

import os
from pathlib import Path

from flux_hotswap.hosted_api.cluster.replica import LOGS, own_folder, root_of
from flux_hotswap.hosted_api.cluster.settings import read_settings


def test_what_else_lies_in_a_named_folder_stays(tmp_path: Path) -> None:
    others = [tmp_path / "models" / "flux1-dev.safetensors", tmp_path / "lock"]
    settings = read_settings({"comfyui": "/c", "folder": str(tmp_path)})
    root = root_of(settings)
    others += [root / "notes" / "file", root / "replica-notes" / "file"]
    for each in others:
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text("mine")
    for _ in range(2):
        with own_folder(root) as folder:
            assert folder.is_relative_to(tmp_path)
    assert [each.read_text() for each in others] == ["mine"] * len(others)


def test_replicas_at_one_time_have_a_folder_each(tmp_path: Path) -> None:
    with own_folder(tmp_path) as one, own_folder(tmp_path) as other:
        assert one != other
        assert one.is_dir()


def test_the_last_logs_stay_and_nothing_else(tmp_path: Path) -> None:
    for number in range(LOGS + 3):
        with own_folder(tmp_path) as folder:
            (folder / "comfyui.log").write_text(f"{number}")
            (folder / "temp").mkdir()
            (folder / "temp" / "large").write_text("")
        os.utime(folder / "comfyui.log", (number, number))
    with own_folder(tmp_path):
        logs = {path.read_text() for path in tmp_path.glob("*/comfyui.log")}
        assert logs == {str(number) for number in range(3, LOGS + 3)}
        assert list(tmp_path.glob("*/temp")) == []
