"""One store of LoRAs on a drive that several machines mount: fetched once, never broken.

    python bench/shared_store.py                    one local folder, as two machines would use it
    python bench/shared_store.py /mnt/a /mnt/b      two mounts of one network drive

Processes at both folders fetch through the real store, from a server on 127.0.0.1. On one machine
the two mounts stand for two machines. On two machines, run nothing there: mount the drive twice on
one. Everything happens in a new folder of the drive, which is removed at the end. Writes
bench/results/shared_store.json, in which each kind of drive has its own entry.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from common import RESULTS, ROOT, machine, write

sys.path.append(str(ROOT))

from bench.fetch import lora_file, serving
from flux_hotswap.errors import FetchError
from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.disk import hash_of
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.store import FOLDER, Store

MIB = 2**20
EACH = 3
"""Processes at each mount."""
SIZE, RATE = 12 * MIB, 6 * MIB
"""Of the LoRA that all of them want: two seconds."""
SMALL = 4096
KEEPS = 6
"""So many small LoRAs fit into the store of the last trial."""
SETTLE = 3.0
"""Seconds after which a drive shows at one mount what was written at another."""


# --- a process at one of the mounts ---


def worker(mount: str, name: str, limit: int) -> None:
    """Fetch what comes on standard input, a source a line; say what came of each."""
    settings = Settings(
        allow=AllowList.parse("127.0.0.1"),
        machine=name,
        reserve_bytes=0,
        keep_recent=0 if limit else Settings.keep_recent,
        cache_bytes=limit or Settings.cache_bytes,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.monotonic()
        try:
            found = fetch(line.strip(), store=Store(Path(mount), settings), settings=settings)
            told: dict[str, Any] = {"sha256": found.sha256, "from_cache": found.from_cache}
        except (FetchError, OSError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({**told, "seconds": time.monotonic() - begun}), flush=True)


class Worker:
    """Such a process."""

    def __init__(self, mount: Path, name: str, limit: int = 0) -> None:
        command = [sys.executable, __file__, "--worker", str(mount), name, str(limit)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._in = cast("IO[str]", self._process.stdin)
        self._out = cast("IO[str]", self._process.stdout)

    def ready(self) -> None:
        """Wait until it could begin."""
        self._out.readline()

    def ask(self, sources: Sequence[str]) -> None:
        """Let it begin."""
        self._in.write("".join(f"{source}\n" for source in sources))
        self._in.close()

    def end(self) -> list[dict[str, Any]]:
        """What came of each source."""
        with self._out as out:
            told = [json.loads(line) for line in out]
        self._process.wait()
        return told

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()


@contextmanager
def workers(mounts: Sequence[Path], limit: int = 0) -> Iterator[list[Worker]]:
    """As many as there are to be at each mount, in turn, ready to begin."""
    made = [
        Worker(mount, f"machine {index}", limit)
        for _ in range(EACH)
        for index, mount in enumerate(mounts)
    ]
    try:
        for one in made:
            one.ready()
        yield made
    finally:
        for one in made:
            one.kill()


# --- the trials; each has a store of its own ---


def at_once(mounts: Sequence[Path], url: str, whole: str) -> dict[str, Any]:
    """All want the same LoRA at the same time."""
    with workers(mounts) as all_:
        for one in all_:
            one.ask([url])
        told = [found for one in all_ for found in one.end()]
    return {
        "processes": len(told),
        "downloads": sum(found.get("from_cache") is False for found in told),
        "wrong": sum(found.get("sha256", whole) != whole for found in told),
        "errors": errors(told),
        **state(mounts),
    }


def killed(mounts: Sequence[Path], url: str, whole: str) -> dict[str, Any]:
    """One is killed while it downloads, and one at the other mount waits for it."""
    first, second = Worker(mounts[0], "machine 0"), Worker(mounts[1], "machine 1")
    try:
        for one in (first, second):
            one.ready()
        first.ask([url])
        while not any(mounts[0].glob(f"{FOLDER}/.work/*.part")):
            time.sleep(0.01)
        second.ask([url])
        time.sleep(SIZE / RATE / 4)
        first.kill()
        begun = time.monotonic()
        told = second.end()
        seconds = time.monotonic() - begun
    finally:
        first.kill()
        second.kill()
    return {
        "seconds_after_the_kill": round(seconds, 2),
        "wrong": sum(found.get("sha256", whole) != whole for found in told),
        "errors": errors(told),
        **state(mounts),
    }


def many(mounts: Sequence[Path], each: int, limit: int = 0) -> dict[str, Any]:
    """Each fetches LoRAs of its own, so all change the index at the same time."""
    with workers(mounts, limit) as all_:
        for one in all_:
            one.ask([small_lora() for _ in range(each)])
        told = [found for one in all_ for found in one.end()]
    return {"fetched": len(told), "errors": errors(told), **state(mounts)}


def small_lora() -> str:
    """A small LoRA that nobody else has, as a data: URI."""
    tensor = {"dtype": "F16", "shape": [SMALL // 2], "data_offsets": [0, SMALL]}
    head = json.dumps({"transformer.proj_out.lora_A.weight": tensor}).encode()
    data = struct.pack("<Q", len(head)) + head + os.urandom(SMALL)
    return f"data:;base64,{base64.b64encode(data).decode()}"


def errors(told: Sequence[dict[str, Any]]) -> list[str]:
    """What went wrong, each kind once."""
    return sorted({found["error"][:200] for found in told if "error" in found})


def state(mounts: Sequence[Path]) -> dict[str, Any]:
    """What the store is afterwards, seen from the mount that sees most that is wrong."""
    time.sleep(SETTLE)
    seen = [state_at(mount) for mount in mounts]
    worst = {name: max(one[name] for one in seen) for name in seen[0]}
    return worst | {"entries": min(one["entries"] for one in seen)}


def state_at(mount: Path) -> dict[str, int]:
    """Compare the index with the files."""
    store = Store(mount, Settings())
    entries = {entry.file: entry for entry in store.entries().values()}
    files = {path.name: path for path in store.root.glob("*.safetensors")}
    return {
        "entries": len(entries),
        "files": len(files),
        "forgotten": len(files.keys() - entries.keys()),
        "missing": len(entries.keys() - files.keys()),
        # The name of a file ends in the start of its hash.
        "broken": sum(hash_of(path)[:8] != path.stem[-8:] for path in files.values()),
    }


# --- the report ---


def measure(mounts: Sequence[Path], work: Path, each: int) -> dict[str, Any]:
    """Run the trials in new folders of the drive."""
    path = work / "lora.safetensors"
    lora_file(path, SIZE)
    whole = hash_of(path)
    small = SMALL + 200
    report: dict[str, Any] = {}
    with serving(path, RATE) as url, rooms(mounts) as room:
        report["at_once"] = at_once(room("at_once"), url, whole)
        report["killed"] = killed(room("killed"), url, whole)
        report["index"] = many(room("index"), each)
        report["eviction"] = many(room("eviction"), each, KEEPS * small)
    for name, found in report.items():
        print(f"{name:9}{found}")
    return report


@contextmanager
def rooms(mounts: Sequence[Path]) -> Iterator[Any]:
    """Folders that lie in a new folder of the drive, seen from each mount."""
    made = Path(tempfile.mkdtemp(prefix="hotswap-trial-", dir=mounts[0]))

    def room(name: str) -> list[Path]:
        (made / name).mkdir()
        found = [mount / made.name / name for mount in mounts]
        end = time.monotonic() + 60
        while not found[-1].is_dir():  # the other mount may look from time to time only
            if time.monotonic() > end:
                raise SystemExit(f"{found[-1]} does not appear: are these mounts of one drive?")
            time.sleep(0.1)
        return found

    try:
        yield room
    finally:
        shutil.rmtree(made, ignore_errors=True)


def kind_of(folder: Path) -> str:
    """Return the type of the file system that a folder is on, as Linux calls it."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():
        return platform.system()
    place, best, kind = folder.resolve(), -1, "unknown"
    for line in mounts.read_text().splitlines():
        point, name = line.split()[1:3]
        target = Path(point.replace("\\040", " "))
        if place.is_relative_to(target) and len(target.parts) >= best:
            best, kind = len(target.parts), name
    return kind


def main() -> None:
    """Try, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mounts", nargs="*", type=Path, help="two mounts of one drive")
    parser.add_argument("--each", type=int, default=20, help="small LoRAs of each process")
    parser.add_argument("--name", help="of the drive; else what Linux calls it")
    parser.add_argument("--output", type=Path, default=RESULTS / "shared_store.json")
    options = parser.parse_args()
    if len(options.mounts) not in (0, 2):
        parser.error("give two folders, or none")
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        mounts = options.mounts or [Path(folder), Path(folder)]
        report = measure(mounts, Path(folder), options.each)
    kind = options.name or kind_of(mounts[0])
    report |= {"processes_at_each": EACH, "when": time.strftime("%Y-%m-%d")}
    before = json.loads(options.output.read_text())["drives"] if options.output.is_file() else {}
    drives = {**before, kind: report}
    write(options.output, {"machine": machine("filelock"), "drives": drives})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
