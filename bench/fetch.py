"""The fetcher against curl and aria2c, the cost of a resume, and the time of a cache hit.

    python bench/fetch.py

Servers on 127.0.0.1 serve one file: an open one, over http and over https, against curl, and one
that limits the rate of each connection, against aria2c -x16. All take turns, the first round warms
up, the figures are medians. Ours also hashes, checks and flushes what it fetches; the others only
write it. A peer that is not installed is left out, and said so. Writes bench/results/fetch.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, seconds, summary, take_turns, write

sys.path.append(str(ROOT))

from flux_hotswap.errors import CancelledError
from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.store import Store

MIB = 2**20
ENTRIES = 100
"""LoRAs in the store of the cache hits."""
SETTINGS = Settings(allow=AllowList.parse("127.0.0.1"))
CURL = ("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--output")
ARIA2 = (
    *("aria2c", "--quiet", "--no-conf", "--max-connection-per-server=16", "--split=16"),
    *("--min-split-size=1M", "--file-allocation=none", "--all-proxy=", "--dir"),
)


def lora_file(path: Path, size: int) -> None:
    """Write a sound safetensors file with so many random bytes of data."""
    tensor = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size // 2 * 2]}
    head = json.dumps({"transformer.proj_out.lora_A.weight": tensor}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for at in range(0, size // 2 * 2, MIB):
            file.write(os.urandom(min(MIB, size // 2 * 2 - at)))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def serving(path: Path, rate: int | None = None, tls: Path | None = None) -> Iterator[str]:
    """The link of the file on a server in a process of its own."""
    command = [sys.executable, str(ROOT / "bench" / "file_server.py"), str(path)]
    command += ["--rate", str(rate)] if rate else []
    command += ["--tls", str(tls)] if tls else []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            port = int(server.stdout.readline() if server.stdout else 0)
            yield f"http{'s' if tls else ''}://127.0.0.1:{port}/{path.name}"
        finally:
            server.terminate()


def certificate(path: Path) -> bool:
    """Write a certificate of 127.0.0.1 with its key; tell whether openssl is there to do it."""
    if shutil.which("openssl") is None:
        return False
    command = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(path), "-out", f"{path}.crt"),
    )
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return True


# --- what is measured; each gets an empty folder and returns seconds ---


def ours(url: str, folder: Path, settings: Settings = SETTINGS) -> float:
    """Fetch into an empty store."""
    return seconds(lambda: fetch(url, store=Store(folder, settings), settings=settings))


def resumed(url: str, folder: Path, size: int) -> float:
    """Fetch, be stopped in the middle, and go on in a new store as a new process would."""

    def until_the_middle() -> None:
        try:
            fetch(
                url,
                store=Store(folder, SETTINGS),
                settings=SETTINGS,
                cancelled=lambda: part_size(folder) >= size // 2,
            )
        except CancelledError:
            return
        raise AssertionError("it was whole before it could be stopped")

    first = seconds(until_the_middle)
    return first + ours(url, folder)


def part_size(folder: Path) -> int:
    """Bytes of the file that is still arriving."""
    return sum(part.stat().st_size for part in folder.glob("flux-hotswap/.work/*.part"))


def curl(url: str, folder: Path, *more: str) -> float:
    """Download with curl."""
    return seconds(lambda: subprocess.run([*CURL, str(folder / "file"), *more, url], check=True))


def aria2(url: str, folder: Path) -> float:
    """Download with aria2c over 16 connections."""
    return seconds(lambda: subprocess.run([*ARIA2, str(folder), url], check=True))


def cache_hit(work: Path, path: Path) -> list[float]:
    """Ask for a LoRA that is in a store of many, each time as the node does."""
    folder = work / "hits"
    small = path.with_name("small.safetensors")
    lora_file(small, 64 * 1024)
    with serving(small) as url:
        links = [f"{url}?{number}" for number in range(ENTRIES)]
        for link in links:
            fetch(link, store=Store(folder, SETTINGS), settings=SETTINGS)
    # The server is gone: only the store can answer.
    return [ours(link, folder) for _ in range(5) for link in links]


# --- the report ---


def race(
    work: Path, contestants: dict[str, Callable[[Path], float]], runs: int, size: int
) -> dict[str, Any]:
    """Let each fetch into an empty folder, in turn."""

    def fresh(run: Callable[[Path], float]) -> Callable[[], float]:
        def go() -> float:
            folder = Path(tempfile.mkdtemp(dir=work))
            taken = run(folder)
            shutil.rmtree(folder)
            return taken

        return go

    times = take_turns({name: fresh(run) for name, run in contestants.items()}, runs)
    found: dict[str, Any] = {}
    for name, values in times.items():
        found[name] = summary(values)
        found[name]["mb_per_second"] = round(size / 1e6 / statistics.median(values), 1)
    return found


def against(found: dict[str, Any], peer: str, title: str) -> None:
    """Note and print the throughput of ours over that of the peer."""
    for name in ("ours", peer):
        if name in found:
            entry = found[name]
            speed = f"{entry['seconds_median']:8.3f} s{entry['mb_per_second']:9.1f} MB/s"
            print(f"{title:9}{name:8}{speed}")
    if peer in found:
        ratio = found[peer]["seconds_median"] / found["ours"]["seconds_median"]
        found["throughput_of_peer"] = round(ratio, 3)
        print(f"{title:9}ours has {ratio:.2f} of the throughput of {peer}")
    else:
        found["missing"] = peer
        print(f"{title:9}{peer} is not installed: nothing to compare with")


def version(program: str) -> str | None:
    """What a program says of its version; None if it is not there."""
    if shutil.which(program) is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[0]


def measure(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run everything in a work folder."""
    path = work / "lora.safetensors"
    size = options.size * MIB
    lora_file(path, size)
    report: dict[str, Any] = {}
    with serving(path) as url:
        runs: dict[str, Callable[[Path], float]] = {"ours": lambda folder: ours(url, folder)}
        if shutil.which("curl"):
            runs["curl"] = lambda folder: curl(url, folder)
        runs["resumed"] = lambda folder: resumed(url, folder, size)
        report["open"] = race(work, runs, options.runs, size)
    stopped = report["open"].pop("resumed")
    against(report["open"], "curl", "open")
    ratio = stopped["seconds_median"] / report["open"]["ours"]["seconds_median"]
    report["resume"] = {"cut_and_resumed": stopped, "time_of_uncut": round(ratio, 3)}
    print(f"{'resume':9}cut in the middle and resumed takes {ratio:.2f} of the time of uncut")
    report["https"] = over_tls(work, path, options.runs, size)
    with serving(path, options.rate * MIB) as url:
        runs = {"ours": lambda folder: ours(url, folder)}
        if shutil.which("aria2c"):
            runs["aria2c"] = lambda folder: aria2(url, folder)
        report["limited"] = race(work, runs, options.runs, size)
    against(report["limited"], "aria2c", "limited")
    report["tar"] = as_a_tar(work, path, options, size)
    hits = cache_hit(work, path)
    middle, slow = statistics.median(hits), sorted(hits)[int(0.99 * len(hits))]
    report["cache_hit"] = {
        "entries": ENTRIES,
        "calls": len(hits),
        "milliseconds_median": round(middle * 1e3, 3),
        "milliseconds_of_99_percent": round(slow * 1e3, 3),
    }
    print(f"{'hit':9}{middle * 1e3:.2f} ms, 99 of 100 below {slow * 1e3:.2f} ms")
    return report


def as_a_tar(work: Path, path: Path, options: argparse.Namespace, size: int) -> dict[str, Any]:
    """The limited server: the file, and the same file in a tar as Replicate's trainer makes it."""
    packed = path.with_suffix(".tar")
    with tarfile.open(packed, "w") as file:
        file.add(path, "output/flux_train_replicate/lora.safetensors")
    rate = options.rate * MIB
    with serving(path, rate) as plain, serving(packed, rate) as tar:
        found = race(
            work,
            {"ours": lambda folder: ours(tar, folder), "file": lambda folder: ours(plain, folder)},
            options.runs,
            size,
        )
    packed.unlink()
    against(found, "file", "tar")
    return found


def over_tls(work: Path, path: Path, runs: int, size: int) -> dict[str, Any]:
    """The open server once more, over https."""
    pem = work / "certificate.pem"
    if not certificate(pem):
        print(f"{'https':9}openssl is not installed: not measured")
        return {"missing": "openssl"}
    trusting = replace(SETTINGS, ca_bundle=f"{pem}.crt")
    with serving(path, tls=pem) as url:
        rivals: dict[str, Callable[[Path], float]] = {}
        rivals["ours"] = lambda folder: ours(url, folder, trusting)
        if shutil.which("curl"):
            rivals["curl"] = lambda folder: curl(url, folder, "--cacert", f"{pem}.crt")
        found = race(work, rivals, runs, size)
    against(found, "curl", "https")
    return found


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--size", type=int, default=300, help="of the file, in MiB")
    parser.add_argument("--rate", type=int, default=4, help="limit of a connection, in MiB/s")
    parser.add_argument("--output", type=Path, default=RESULTS / "fetch.json")
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="bench-fetch-") as folder:
        report = measure(Path(folder), options)
    setup = {
        "size_mib": options.size,
        "limited_mib_per_second_and_connection": options.rate,
        "runs": options.runs,
        "curl": version("curl"),
        "aria2c": version("aria2c"),
        "load_before": load,
        "when": time.strftime("%Y-%m-%d"),
    }
    write(options.output, {"machine": machine("requests", "urllib3"), "setup": setup, **report})


if __name__ == "__main__":
    main()
