"""The hosted model's API over a ComfyUI of ours: `python -m runtime.api`, run by `dev.py api`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flux_hotswap.hosted_api.run import main as serve

from .comfyui import find_comfyui
from .demo import check_with_opennsfw, has_opennsfw, load_workflow
from .environment import RUNTIME
from .models import choose_models
from .server import ComfyServer

NAMES = {f"local/{name}": {"lora": f"{name}.safetensors"} for name in ("sticker", "hollow")}
"""The LoRAs of the small FLUX, by the names that clients call them."""

HINT = """\
Call it as the hosted model, with REPLICATE_BASE_URL=http://127.0.0.1:{port} and any token:

    replicate.run("{model}", input={{"prompt": "STKR, a large yellow star", "megapixels": "0.25"}})

A browser shows what it draws at http://127.0.0.1:{port}. Ctrl-C ends it.
"""


def main(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C; options go to `python -m hosted_api`."""
    comfyui = find_comfyui()
    choice = choose_models(comfyui, "dev")
    _say(choice.report)
    base = RUNTIME / ("api-real" if choice.real else "api")
    server = ComfyServer(comfyui, base=base / "comfyui", keep_secrets=True, **choice.server)
    words = ["--state", str(base / "state"), *server.prepared()]
    if not choice.real:
        words += _small(base)
    os.environ |= server.environment
    port = argv[argv.index("--port") + 1] if "--port" in argv[:-1] else "5000"
    _say(HINT.format(port=port, model="owner/name" if choice.real else "local/sticker"))
    return serve([*words, *argv])


def _small(base: Path) -> list[str]:
    """Options for the small FLUX: its LoRAs have names, and a checker that knows pictures."""
    names = base / "names.json"
    names.write_text(json.dumps(NAMES), encoding="utf-8")
    if not has_opennsfw(find_comfyui()):
        return ["--names", str(names)]
    prompt = load_workflow({"prompt": "", "image": "x"})
    check_with_opennsfw(prompt)
    workflow = base / "workflow.json"
    workflow.write_text(json.dumps(prompt), encoding="utf-8")
    return ["--names", str(names), "--workflow", str(workflow)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
