"""Hundreds of random prompts against one real ComfyUI: does it stay alive, sound and small?

    python bench/soak.py            # 500 valid, 200 invalid requests and what disturbs
    python bench/soak.py --short --output soak.json

A server draws with the small random FLUX, LoRAs come from a web server on this machine that
sometimes breaks off. Between the requests prompts are cancelled, the queue is cleared and downloads
are interrupted. Writes bench/results/soak.json; fails if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import collections
import io
import itertools
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, write

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from PIL import Image
from runtime.client import Client, PromptRejectedError, Result
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from soak_requests import Case, Requests
from soak_trend import LONG, WARM_UP, grown, thinned, trend

import flux_hotswap.errors as errors
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.store import Store

OWN_ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.HotswapError)
} - {"CancelledError"}
"""What a request may be answered with; a cancel is none, and asyncio has one of that name."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1",
    # glibc gives freed memory back at once: it would keep as much as the largest prompts needed,
    # and a leak would hide in that.
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    # torch keeps the code it made for each of the last 1024 shapes: for two convolutions 8 MB with
    # 100 sizes. A leak would hide in that too.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "LRU_CACHE_CAPACITY": "1",
}

PATIENCE = 600.0
"""Seconds that anything may take, on a machine that has other work too."""
MOST_COMPARED = 64
"""Input images that the editor can compare with; older ones go."""


class Soak:
    """One server, and what has become of the prompts so far."""

    def __init__(self, server: ComfyServer, seed: int) -> None:
        self.server = server
        self.client = Client(server.url)
        self.requests = Requests(seed, self.client, server.models_dir)
        self.random = self.requests.random
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.samples: list[tuple[float, int, int]] = []
        self.spent: dict[str, list[float]] = collections.defaultdict(list)
        self.pid = server.pid

    # --- what happens ---

    def valid(self) -> None:
        """A request that gives its files or a clear error."""
        self._judge_valid(self.requests.valid())

    def invalid(self) -> None:
        """A request that is refused by name, before it runs or while it does."""
        case = self.requests.invalid()
        try:
            result = self._run(case)
        except PromptRejectedError as error:
            self._named(case, "refused before it runs", json.dumps(error.node_errors))
            return
        failure = failed(result)
        if failure is None:
            self.problem("an invalid request ran", case.names)
        elif kind_of(failure) not in OWN_ERRORS:
            self.problem("not an error of the pack", failure)
        else:
            self._named(case, "refused while it runs", str(failure["exception_message"]))

    def cancel(self) -> None:
        """A prompt that is interrupted at some moment."""
        case = self.requests.valid(num_inference_steps=self.random.randint(5, 10))
        number = self.client.submit(case.prompt)
        time.sleep(self.random.uniform(0, 1.2))
        self.client.post("/interrupt", self.random.choice(({}, {"prompt_id": number})))
        self._after_interrupt(case, self._wait(number))

    def clear(self) -> None:
        """Several prompts, of which the queue is cleared while the first one runs."""
        cases = [self.requests.valid(num_inference_steps=3) for _ in range(3)]
        numbers = [self.client.submit(case.prompt) for case in cases]
        time.sleep(self.random.uniform(0, 0.3))
        self.client.post("/queue", {"clear": True})
        self._until_idle()
        for case, number in zip(cases, numbers, strict=True):
            result = self.client.result(number)
            if result is None:
                self.outcomes["cleared from the queue"] += 1
            else:
                self._check_valid(case, result)
                self._forget(number)

    def download(self) -> None:
        """A download that is interrupted, and then asked for again."""
        link = self.requests.new_lora(rate=3e5)
        path = link.removeprefix(self.requests.web.url)
        case = self.requests.valid(lora=link, lora_scale=1.0)
        number = self.client.submit(case.prompt)
        deadline = time.monotonic() + PATIENCE
        while not self.requests.web.asked(path) and self.client.result(number) is None:
            if time.monotonic() > deadline:
                self.problem("a download did not begin", link)
                break
            time.sleep(0.01)
        time.sleep(self.random.uniform(0, 0.8))
        self.client.interrupt()
        self._after_interrupt(case, self._wait(number))
        self.requests.web.routes[path].rate = None  # pyright: ignore[reportFunctionMemberAccess]
        self._judge_valid(self.requests.valid(lora=link, lora_scale=1.0))
        ranges = [seen.headers.get("range", "bytes=0-") for seen in self.requests.web.asked(path)]
        resumed = len(ranges) > 1 and not ranges[-1].startswith("bytes=0-")
        self.outcomes["download went on" if resumed else "download began again"] += 1

    # --- judging ---

    def _judge_valid(self, case: Case) -> None:
        try:
            result = self._run(case)
        except PromptRejectedError as error:
            self.problem("a valid request was refused", error.node_errors)
            return
        self._check_valid(case, result)

    def _check_valid(self, case: Case, result: Result) -> None:
        failure = failed(result)
        if failure is not None:
            kind = kind_of(failure)
            if kind in OWN_ERRORS:
                self.outcomes[f"clear error ({kind})"] += 1
            else:
                self.problem("a valid request failed", failure)
            return
        pictures = result.images()
        if len(pictures) != case.outputs:
            self.problem(f"{len(pictures)} files, not {case.outputs}", result.messages)
        for entry in pictures:
            with Image.open(io.BytesIO(self.client.view(entry))) as picture:
                picture.load()
                if picture.format != case.kind:
                    self.problem(f"{picture.format}, not {case.kind}", entry)
        self.outcomes["files"] += 1

    def _after_interrupt(self, case: Case, result: Result) -> None:
        if any(kind == "execution_interrupted" for kind, _ in result.messages):
            self.outcomes["cancelled"] += 1
        else:
            self.outcomes["ended before the cancel"] += 1
            self._check_valid(case, result)

    def _named(self, case: Case, how: str, text: str) -> None:
        if any(name and name in text for name in case.names):
            self.outcomes[how] += 1
        else:
            self.problem(f"the error does not name {case.names[0]}", text)

    def problem(self, what: str, about: object) -> None:
        """Note what is not as it should be."""
        self.outcomes["problem"] += 1
        self.problems.append(f"{what}: {str(about)[:1500]}")
        print(self.problems[-1], flush=True)

    # --- the server ---

    def _run(self, case: Case) -> Result:
        return self._wait(self.client.submit(case.prompt))

    def _wait(self, number: str) -> Result:
        result = self.client.wait(number, timeout=PATIENCE)
        self._forget(number)
        return result

    def _forget(self, number: str) -> None:
        """ComfyUI keeps every prompt with its pictures in its history until it is told to."""
        self.client.post("/history", {"delete": [number]})

    def _until_idle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while any(self.client.queue().values()):
            if time.monotonic() > deadline:
                self.problem("the queue does not end", self.client.queue())
                return
            time.sleep(0.05)

    def sample(self) -> None:
        """Note memory in MB, open files and threads of the server."""
        folder = Path(f"/proc/{self.pid}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.M))
        files = sum(1 for _ in (folder / "fd").iterdir())
        self.samples.append((int(status["VmRSS"]) / 1024, files, int(status["Threads"])))

    # --- the end ---

    def look_at_the_end(self) -> None:
        """Check what is left: nothing in the queue, nothing half done on the disk."""
        self._until_idle()
        self._judge_valid(self.requests.valid())
        if self.server.pid != self.pid:
            self.problem("the server is not the same process", self.server.log_tail())
        base, models = self.server.base, self.server.models_dir
        for path in (base / "output").rglob("*"):
            if path.is_file() and not opens(path):
                self.problem("a file in output does not open", path.name)
        self._let_parts_go()
        self._look_for_leftovers(base)
        store = Store(models / "loras", Settings())
        for entry in store.entries().values():
            if (state := store.check(entry, thorough=True)) != "ok":
                self.problem(f"{entry.file} is {state}", entry)
        for thrown in last_of_chains(self.server.log_text()):
            if thrown.split(":")[0].rpartition(".")[2] not in OWN_ERRORS:
                self.problem("in the log", thrown)

    def _look_for_leftovers(self, base: Path) -> None:
        left = [*(base / "temp").rglob("*"), *base.rglob("*.part"), *base.rglob("*.tmp")]
        compared = [path for path in left if path.name.startswith("flux-hotswap_before_")]
        if len(compared) > MOST_COMPARED:
            self.problem("too many input images are kept", str(len(compared)))
        for path in set(left) - set(compared):
            if path.is_file():
                self.problem("left behind", path.relative_to(base))

    def _let_parts_go(self) -> None:
        """What a cancelled download left is there to go on with, and goes after a day."""
        loras = self.server.models_dir / "loras"
        for path in loras.rglob("*.part"):
            self.outcomes["part kept to go on with"] += 1
            os.utime(path, (1, 1))
        Store(loras, Settings()).prune(keep_bytes=2**40)


def failed(result: Result) -> dict[str, Any] | None:
    """What ComfyUI says of the node that raised, None if none did."""
    found = [data for kind, data in result.messages if kind == "execution_error"]
    return found[-1] if found else None


def kind_of(failure: dict[str, Any]) -> str:
    """The plain name of what was raised."""
    return str(failure["exception_type"]).rpartition(".")[2]


def opens(path: Path) -> bool:
    """Whether a picture can be read to its end."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True


def last_of_chains(log: str) -> list[str]:
    """The last line of each traceback in a log that no other one followed from."""
    found: list[str] = []
    lines = iter(log.splitlines())
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            rest = itertools.dropwhile(lambda text: not text or text[0].isspace(), lines)
            found.append(next(rest, ""))
        elif found and line.startswith(("The above exception was", "During handling of the")):
            found.pop()
    return found


def program(prompts: int, draw: Callable[[list[str]], None]) -> list[str]:
    """What happens in turn: 5 valid to 2 invalid requests, and one disturbance for ten of them."""
    valid = round(prompts * 5 / 7)
    names = ["valid"] * valid + ["invalid"] * (prompts - valid)
    for name, share in (("cancel", 20), ("clear", 40), ("download", 40)):
        names += [name] * max(1, prompts // share)
    draw(names)
    return names


def main() -> int:
    """Run, print what was wrong, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=700, help="valid and invalid together")
    parser.add_argument("--minutes", type=float, default=180, help="end early after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="10 prompts")
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.prompts = 10
    begun = time.monotonic()
    server = ComfyServer(find_comfyui(), models=small_models(), env=ENVIRONMENT)
    with server:
        soak = Soak(server, arguments.seed)
        names = program(arguments.prompts, soak.random.shuffle)
        for number, name in enumerate(names, 1):
            started = time.monotonic()
            getattr(soak, name)()
            soak.sample()
            soak.spent[name].append(time.monotonic() - started)
            if number % 25 == 0:
                memory, files, _ = soak.samples[-1]
                print(
                    f"{number} of {len(names)}: {memory:.0f} MB, {files} files, "
                    f"{len(soak.problems)} problems",
                    flush=True,
                )
            if time.monotonic() - begun > 60 * arguments.minutes:
                names = names[:number]
                break
        soak.look_at_the_end()
        if len(names) >= LONG:
            for text in grown(soak.samples):
                soak.problem("a leak", text)
        soak.requests.web.close()
    seconds = round(time.monotonic() - begun, 1)
    report = report_of(soak, names, seconds) | {"seed": arguments.seed}
    write(arguments.output, report)
    print(json.dumps(report["outcomes"], indent=1))
    return 1 if soak.problems else 0


def report_of(soak: Soak, names: list[str], seconds: float) -> dict[str, Any]:
    """The results as JSON values."""
    memory, files, threads = (list(column) for column in zip(*soak.samples, strict=True))
    by = max(1, len(names) // 80)
    cancelled = soak.outcomes["cancelled"] + soak.outcomes["cleared from the queue"]
    return {
        "machine": machine("torch", "comfyui-frontend-package"),
        "prompts": {
            "valid": names.count("valid"),
            "invalid": names.count("invalid"),
            "cancelled": cancelled,
        },
        "outcomes": dict(sorted(soak.outcomes.items())),
        "problems": soak.problems,
        "samples_are_medians_of": by,
        "memory_mb": thinned(memory, by),
        "open_files": thinned(files, by),
        "threads": thinned(threads, by),
        "trend": {
            "warm_up": WARM_UP,
            "memory_mb": trend(memory),
            "open_files": trend(files),
            "threads": trend(threads),
        },
        "seconds": seconds,
        "seconds_of_each": {
            name: round(statistics.median(values), 2) for name, values in soak.spent.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
