"""``python -m lora_fetch``: what it prints, returns and leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fetch.servers import lora, sha256
from fetch.services import DATA, OTHER
from fetch.world import World
from flux_hotswap.lora_fetch.__main__ import look
from flux_hotswap.lora_fetch.cli import main
from flux_hotswap.lora_fetch.parser import parse

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def run(world: World, *argv: str, **environ: str) -> int:
    place = {} if environ.pop("nowhere", "") else {"FLUX_HOTSWAP_LORAS": str(world.loras)}
    return main(argv, {"FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1", **place, **environ}, look)


def test_fetch_list_path_verify_prune(world: World, capsys: Any) -> None:
    first = world.cdn.file("/a.safetensors", DATA)
    phrase = {"modelspec.trigger_phrase": "T"}
    second = world.cdn.file("/b.safetensors", lora(9_000, metadata=phrase))
    assert run(world, first, second, "--pin") == 0
    out, err = capsys.readouterr()
    assert [Path(line).is_file() for line in out.splitlines()] == [True, True]
    assert "Trigger words: T" in err
    assert run(world, "list") == 0
    out, _ = capsys.readouterr()
    assert first in out
    assert "pinned" in out
    assert "in 2 entries" in out
    assert run(world, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {item["sha256"] for item in listed} >= {sha256(DATA)}
    assert run(world, "path", first) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.read_bytes() == DATA
    assert run(world, "verify") == 0
    assert capsys.readouterr().out.count("ok") == 2
    stat = path.stat()
    path.write_bytes(DATA[:-1] + b"?")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(world, "verify") == 1
    out, err = capsys.readouterr()
    assert "damaged" in out
    assert "1 not as they should be" in err
    assert run(world, "path", first) == 1
    assert "has not been fetched" in capsys.readouterr().err
    assert run(world, "prune", "--max-size", "0") == 0
    assert "0 B freed" in capsys.readouterr().out


def test_prune(world: World, capsys: Any) -> None:
    assert run(world, world.cdn.file("/a.safetensors", DATA), "--quiet") == 0
    work = world.loras / "flux-hotswap" / ".work"
    old = work / ("0" * 32 + ".part")
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    fresh = work / ("1" * 32 + ".part")
    fresh.write_bytes(b"x")
    assert run(world, "prune") == 0
    assert old.name in capsys.readouterr().out
    assert fresh.exists()
    assert run(world, "prune", "--older-than", "1") == 0
    assert "removed" not in capsys.readouterr().out
    assert run(world, "prune", "--older-than", "-1") == 0
    assert "removed a-" in capsys.readouterr().out
    assert not list(world.loras.rglob("*.safetensors"))


def test_one_that_fails_does_not_stop_the_others(world: World, capsys: Any) -> None:
    good = world.cdn.file("/a.safetensors", DATA)
    assert run(world, "owner", good) == 1
    out, err = capsys.readouterr()
    assert "this names no LoRA" in err
    assert Path(out.strip()).read_bytes() == DATA


def test_warning_is_shown(world: World, capsys: Any) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    environ = {"FLUX_HOTSWAP_RECHECK_HOURS": "0"}
    assert run(world, url, **environ) == 0
    world.cdn.file("/a.safetensors", OTHER, statuses=[(404, {})])
    assert run(world, url, **environ) == 0
    assert "Warning: Could not look" in capsys.readouterr().err


def test_local_file(world: World, capsys: Any) -> None:
    world.loras.mkdir()
    (world.loras / "mine.safetensors").write_bytes(DATA)
    assert run(world, "path", "mine.safetensors") == 0
    assert capsys.readouterr().out.strip() == str(world.loras / "mine.safetensors")


def test_where_the_folder_comes_from(world: World, tmp_path: Path, capsys: Any) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    assert run(world, url, nowhere="1") == 1
    assert "FLUX_HOTSWAP_LORAS" in capsys.readouterr().err
    assert run(world, url, nowhere="1", COMFYUI_DIR=str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "models" / "loras"))
    assert run(world, url, "--dir", str(tmp_path / "x")) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "x"))


class Terminal:
    """Standard error that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("length", [True, False], ids=["known", "unknown"])
def test_progress_bar(world: World, monkeypatch: Any, length: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    data = lora(3_000_000)
    url = world.cdn.file("/a.safetensors", data, rate=10_000_000)
    if not length:
        world.cdn.file("/a.safetensors", data, ranges=False, headers={"Content-Length": ""})
        world.cdn.routes["/a.safetensors"] = _chunked(data)
    assert run(world, url) == 0
    assert ("100%" in terminal.text) is True
    assert "MB/s" in terminal.text
    assert terminal.text.endswith("\r\x1b[K")


def _chunked(data: bytes) -> Any:
    def serve(request: Any) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for at in range(0, len(data), 1_000_000):
            piece = data[at : at + 1_000_000]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    return serve


def test_interrupt(world: World, monkeypatch: Any, capsys: Any) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flux_hotswap.lora_fetch.cli.fetch", interrupt)
    assert run(world, "a/b") == 130
    assert "goes on from there" in capsys.readouterr().err


WAYS = {
    "in the pack's folder": (["-m", "lora_fetch"], TOP),
    "by its path": ([str(TOP / "lora_fetch")], Path.home()),
    "by its path in the portable ComfyUI's Python": (["-I", str(TOP / "lora_fetch")], Path.home()),
}


@pytest.mark.parametrize(("words", "folder"), WAYS.values(), ids=list(WAYS))
def test_as_a_program_without_torch_and_comfyui(
    world: World, words: list[str], folder: Path
) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    environ = {**os.environ, "FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *words, url, "--dir", world.loras],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert Path(done.stdout.strip()).read_bytes() == DATA


def test_as_a_part_of_a_pack_and_with_little_in_memory() -> None:
    """Under any package name, without torch, ComfyUI or another folder of the pack."""
    script = f"""
import importlib, importlib.util, sys
spec = importlib.util.spec_from_file_location(
    "pack", {str(TOP / "__init__.py")!r}, submodule_search_locations=[{str(TOP)!r}])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
module = importlib.import_module("pack.lora_fetch.parser")
heavy = {{"torch", "comfy", "folder_paths", "lora_fetch", "flux_hotswap", "huggingface_hub"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert module.parse("a/b").owner == "a"
"""
    subprocess.run([sys.executable, "-c", script], cwd="/", check=True, timeout=30)


def test_documented_variables_and_examples() -> None:
    text = (TOP / "docs" / "lora_sources.md").read_text(encoding="utf-8")
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("files", "lora_fetch")
        for path in (TOP / folder).rglob("*.py")
    )
    variables = re.compile(r"FLUX_HOTSWAP_[A-Z_]+")
    assert set(variables.findall(text)) == set(variables.findall(code))
    forms = text.split("## Accepted forms")[1].split("\n\n")[1]
    written = [
        form for row in forms.splitlines()[2:] for form in row.split("|")[1].split("`")[1::2]
    ]
    examples = [f for f in written if "..." not in f and "/" in f and f not in ("blob", "tree")]
    assert len(examples) > 15
    for example in examples:
        parse(example)


@pytest.mark.parametrize("around", ['"{}"', "<{}>", "{}/"])
def test_a_link_as_it_was_copied(world: World, capsys: Any, around: str) -> None:
    link = world.cdn.file("/a.safetensors", DATA)
    assert run(world, around.format(link)) == 0
    assert run(world, "path", link) == 0
    first, second = capsys.readouterr().out.split()
    assert first == second


def test_the_bar_shows_no_secret(world: World, monkeypatch: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    link = world.cdn.file("/a.safetensors", DATA)
    assert run(world, link + "?token=SECRET") == 0
    assert run(world, "civitai:5&token=SECRET") == 1
    assert "/a.safetensors" in terminal.text or "127.0.0.1" in terminal.text
    assert "SECRET" not in terminal.text
