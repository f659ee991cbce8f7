"""The pack as an installer leaves it: from the archive, in a ComfyUI that knows nothing of it."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.archive import build
from runtime.client import Client
from runtime.comfyui import find_comfyui
from runtime.environment import clean_env
from runtime.models import small_models
from runtime.server import PACK_NAME, ComfyServer

from flux_hotswap.prediction.fill import fill_prompt

LIMIT = 2 * 10**6
FAST = {"prompt": "a cat", "aspect_ratio": "custom", "width": 256, "height": 256, "seed": 3}
FAST |= {"num_inference_steps": 1, "disable_safety_checker": True}
# What a log line looks like that nobody wants to see.
_BAD = re.compile(r"warning|error|traceback|failed|deprecat", re.IGNORECASE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("archive") / "node.zip")


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("clean")
    pack = base / "custom_nodes" / PACK_NAME
    with zipfile.ZipFile(archive) as file:
        file.extractall(pack)
    server = ComfyServer(find_comfyui(), models=small_models(), base=base, pack=False)
    with server:
        yield server


def test_the_archive_is_small_and_holds_no_tests(archive: Path) -> None:
    assert archive.stat().st_size < LIMIT
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "js/index.js"} <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"tests", "bench", "docs", ".ci", "node_modules", ".venv", ".runtime"}
    assert not [name for name in names if "test" in name]


def test_its_requirements_are_met_beside_comfyui(installed: ComfyServer) -> None:
    """ComfyUI and the pack ask for nothing that excludes the other."""
    requirements = installed.base / "custom_nodes" / PACK_NAME / "requirements.txt"
    python = str(installed.comfyui.python)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--no-index", "--dry-run", "-r", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
        env=clean_env(),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_starts_without_a_warning(installed: ComfyServer) -> None:
    log = installed.log_text()
    assert PACK_NAME in log
    ours = [line for line in log.splitlines() if PACK_NAME in line or "FluxHotswap" in line]
    assert [line for line in ours if _BAD.search(line)] == []
    assert "Traceback" not in log


def test_it_serves_scripts_templates_and_languages(installed: ComfyServer) -> None:
    client = Client(installed.url)
    scripts = client.request("GET", "/extensions").decode()
    assert f"/extensions/{PACK_NAME}/index.js" in scripts
    assert scripts.count(PACK_NAME) == 1, "index.js is the only script that is loaded by itself"
    assert b"export function extension" in client.request(
        "GET", f"/extensions/{PACK_NAME}/ui/extension.mjs"
    )
    templates = client.get("/api/workflow_templates")[PACK_NAME]
    assert len(templates) == 4
    for name in templates:
        picture = client.request("GET", f"/api/workflow_templates/{PACK_NAME}/{name}.jpg")
        assert picture.startswith(b"\xff\xd8\xff")
    languages = client.get("/i18n")
    assert {"de", "en", "es", "fr", "ja", "ko", "pt-BR", "zh"} <= set(languages)


def test_it_runs_a_workflow(installed: ComfyServer) -> None:
    client = Client(installed.url)
    prompt = (
        installed.base / "custom_nodes" / PACK_NAME / "workflows" / "api" / "text_to_image.json"
    )
    result = client.run(fill_prompt(json.loads(prompt.read_text(encoding="utf-8")), FAST))
    assert client.view(result.images()[0])[8:12] == b"WEBP"
    log = installed.log_text()
    assert "Traceback" not in log
