"""What a server test holds: one ComfyUI for the whole test session, and a client of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fetch.servers import Server
from safetensors.torch import load_file

from .client import Client, OnProgress, Prompt, Result
from .environment import ROOT
from .server import PACK_NAME, ComfyServer

# Where a line of our own code shows in a traceback: through the link, or at its real place.
_OURS = re.compile(
    rf"custom_nodes[\\/]{PACK_NAME}[\\/]"
    rf"|{re.escape(str(ROOT))}[\\/](?!tests[\\/]|\.)"
)
_START = "Traceback (most recent call last):"


@dataclass
class Comfy:
    """A running ComfyUI with the pack, the small models and the test nodes.

    Attributes:
        files: a web server that the pack may fetch from; no other private address is allowed.
    """

    server: ComfyServer
    client: Client
    models: Path
    files: Server
    declared: list[str] = field(default_factory=list)

    def run(self, prompt: Prompt, *, on_progress: OnProgress | None = None) -> Result:
        """Run an API prompt to its end; see `Client.run`."""
        return self.client.run(prompt, on_progress=on_progress)

    def saved(self, name: str) -> dict[str, Any]:
        """The tensors that TestSaveTensor or TestSaveConditioning saved under `name`."""
        return load_file(self.server.output_dir / f"{name}.safetensors")

    def expect_traceback(self, text: str) -> None:
        """Declare that the log may hold a traceback of our pack with `text` in it."""
        self.declared.append(text)

    def undeclared_tracebacks(self) -> list[str]:
        """The tracebacks of our pack in the log that no test declared."""
        ours = [block for block in tracebacks(self.server.log_text()) if _OURS.search(block)]
        return [block for block in ours if not any(text in block for text in self.declared)]


def tracebacks(log: str) -> list[str]:
    """The tracebacks in a log, each with the line that says what was raised."""
    found: list[list[str]] = []
    inside = False
    for line in log.splitlines():
        if line.strip() == _START:
            found.append([line])
            inside = True
        elif inside:
            found[-1].append(line)
            inside = not line or line[0].isspace()
    return ["\n".join(block) for block in found]
