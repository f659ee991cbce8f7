"""Where saved pictures go: prefixes, numbers, and two processes in one folder."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_hotswap.errors import SaveError
from flux_hotswap.ops import metadata, naming
from flux_hotswap.ops.encode import encode
from flux_hotswap.ops.save import Place, save_batch

ROOT = Path(__file__).parents[2]
NOW = datetime(2024, 3, 7, 9, 5, 2)
GRAPH = {"prompt": {"1": {}}, "workflow": {"nodes": []}}


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_batch(tmp_path: Path) -> None:
    images = torch.rand(3, 24, 40, 3)
    place = Place(tmp_path / "sub", "cat", 4, "sub")
    saved = save_batch(images, "webp", 80, texts=metadata.pack(GRAPH), place=place)
    names = ["cat_00004_.webp", "cat_00005_.webp", "cat_00006_.webp"]
    assert [path.name for path in saved.paths] == names
    assert saved.images == [{"filename": n, "subfolder": "sub", "type": "output"} for n in names]
    assert saved.uris[1] == (tmp_path / "sub" / names[1]).as_uri()
    assert "3 saved as webp, quality 80" in saved.report
    assert "sub/cat_00005_.webp: 40x24" in saved.report
    assert listed(tmp_path / "sub") == names
    for path, image in zip(saved.paths, images, strict=True):
        assert path.read_bytes() == encode(image, "webp", 80, GRAPH)


def test_batch_number_in_the_name(tmp_path: Path) -> None:
    place = Place(tmp_path, "b%batch_num%", 1, "")
    for _ in range(2):
        save_batch(torch.zeros(2, 4, 4, 3), "png", 80, texts=metadata.Texts(), place=place)
    assert listed(tmp_path) == [
        "b0_00001_.png",
        "b0_00002_.png",
        "b1_00002_.png",
        "b1_00003_.png",
    ]


def test_warning_is_in_the_report_once(tmp_path: Path) -> None:
    images = torch.full((3, 4, 4, 3), math.nan)
    saved = save_batch(images, "png", 80, texts=metadata.Texts(), place=Place(tmp_path, "n", 1, ""))
    assert saved.report.count("warning: 48 values are NaN") == 1


@pytest.mark.parametrize(
    ("prefix", "clean"),
    [
        ("flux", "flux"),
        ("", naming.DEFAULT_PREFIX),
        ("  ", naming.DEFAULT_PREFIX),
        (".", naming.DEFAULT_PREFIX),
        ("a/b/c", "a/b/c"),
        ("a\\b", "a/b"),
        ("a//b/", "a/b"),
        ("./a", "a"),
        ("a.b.", "a.b"),
        ("a /b. .", "a/b"),
        ("what? <why>: *", "what_ _why__ _"),
        ("猫/ñ", "猫/ñ"),
        ("%year%-%width%/%batch_num%", "%year%-%width%/%batch_num%"),
        ("%date:yyyy-MM-dd%/x", "2024-03-07/x"),
        ("%date:yy.M.d hh-mm-ss%", "24.3.7 09-05-02"),
        ("%date:h:m%", "9_5"),
        ("%date:yyyy/MM%/x", "2024/03/x"),
        ("console", "console"),
        ("com10", "com10"),
    ],
)
def test_prefix(prefix: str, clean: str) -> None:
    assert naming.clean_prefix(prefix, NOW) == clean


@pytest.mark.parametrize(
    ("prefix", "match"),
    [
        ("../x", "leaves the output folder"),
        ("a/../../x", "leaves the output folder"),
        ("a/.. /x", "leaves the output folder"),
        ("..", "leaves the output folder"),
        ("..\\x", "leaves the output folder"),
        ("/etc/x", "absolute path"),
        ("\\\\server\\share\\x", "absolute path"),
        ("C:\\x", "drive"),
        ("c:x", "drive"),
        ("con", "device name"),
        ("a/NUL.txt/b", "device name"),
        ("lpt1", "device name"),
        ("aux.", "device name"),
        ("a\0b", "control or broken"),
        ("a\nb", "control or broken"),
        ("a\x9bb", "control or broken"),
        ("a\ud800", "control or broken"),
        ("x" * 201, "longer than 200 bytes"),
        ("é" * 101, "longer than 200 bytes"),
    ],
)
def test_prefix_refused(prefix: str, match: str) -> None:
    with pytest.raises(SaveError, match=match):
        naming.clean_prefix(prefix, NOW)


PREFIXES = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(["..", ".", "/", "\\", "C:", "con", "%date:", "yyyy", "%", " ", "~", "\0"]),
    ),
    max_size=8,
).map("".join)


@given(PREFIXES)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_prefix_is_refused_or_stays_inside(prefix: str) -> None:
    try:
        clean = naming.clean_prefix(prefix, NOW)
    except SaveError:
        return
    base = Path("/output")
    inside = Path(os.path.normpath(base / clean))
    assert base in inside.parents
    assert not set('<>:"|?*\\') & set(clean)
    for part in clean.split("/"):
        assert part
        assert part == part.strip()
        assert not part.endswith(".")
    assert naming.clean_prefix(clean, NOW) == clean or "%date:" in clean


def test_existing_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a_00001_.png").write_bytes(b"mine")
    (tmp_path / "a_00003_.png").write_bytes(b"mine too")
    paths = naming.write_batch(tmp_path, [("a", b"1"), ("a", b"2")], extension="png", counter=1)
    assert [path.name for path in paths] == ["a_00002_.png", "a_00004_.png"]
    assert (tmp_path / "a_00001_.png").read_bytes() == b"mine"
    assert (tmp_path / "a_00003_.png").read_bytes() == b"mine too"


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a_00001_.png").write_bytes(b"mine")
    (path,) = naming.write_batch(tmp_path, [("a", b"new")], extension="png", counter=1)
    assert path.name == "a_00002_.png"
    assert path.read_bytes() == b"new"
    assert len(listed(tmp_path)) == 2


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Path.open, []

    def full(self: Path, *args: object, **kwargs: object) -> object:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SaveError, match="No space left on device"):
        naming.write_batch(tmp_path, [("a", b"1"), ("a", b"2")], extension="png", counter=1)
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "hours", "stays"),
    [
        (".0123456789abcdef.tmp", 25, False),
        (".0123456789abcdef.tmp", 23, True),
        (".0123456789abcdef.tmp", -25, True),
        (".0123456789ABCDEF.tmp", 25, True),
        (".mine.tmp", 25, True),
        ("0123456789abcdef.tmp", 25, True),
    ],
)
def test_what_a_killed_process_left(tmp_path: Path, name: str, hours: float, stays: bool) -> None:
    left = tmp_path / name
    left.write_bytes(b"half a pict")
    made = left.stat().st_mtime - hours * 3600
    os.utime(left, (made, made))
    (path,) = naming.write_batch(tmp_path, [("a", b"new")], extension="png", counter=1)
    assert path.read_bytes() == b"new"
    assert left.exists() is stays


def test_what_a_killed_process_left_and_nobody_may_remove(tmp_path: Path) -> None:
    folder = tmp_path / ".0123456789abcdef.tmp"
    folder.mkdir()
    os.utime(folder, (1, 1))
    assert naming.write_batch(tmp_path, [("a", b"new")], extension="png", counter=1)
    assert folder.is_dir()


@pytest.mark.parametrize("options", ["size=64k", "size=64k,ro"], ids=["full", "only read"])
def test_a_disk_that_takes_nothing(tmp_path: Path, options: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        words = "Read-only file system" if "ro" in options else "No space left on device"
        files = [("a", bytes(40_000)), ("a", bytes(40_000))]
        with pytest.raises(SaveError, match=words):
            naming.write_batch(tmp_path, files, extension="png", counter=1)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(SaveError, match="cannot write to the folder 'x'"):
        naming.write_batch(tmp_path / "x", [("a", b"1")], extension="png", counter=1)


WRITER = """
import sys
from pathlib import Path
from flux_hotswap.ops.naming import write_batch
folder, mark = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for i in range(40):
    files = [("shared", f"{mark} {i} {j}".encode()) for j in range(3)]
    write_batch(folder, files, extension="webp", counter=1)
"""


def test_two_processes_in_one_folder(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), mark],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for mark in "ab"
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0]
    names = listed(tmp_path)
    assert names == [f"shared_{n:05}_.webp" for n in range(1, 241)]
    contents = {(tmp_path / name).read_text() for name in names}
    assert contents == {f"{m} {i} {j}" for m in "ab" for i in range(40) for j in range(3)}
