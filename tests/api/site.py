"""What the tests of clients call: the APIs, their settings, and the cases run by a script."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from runtime.environment import clean_env
from runtime.session import Comfy

from api.caller import QUICK
from api.hosted import HostedApi
from api.receiver import Receiver

LORA = "sticker.safetensors"
VERSION = "a" * 64
NAMES = {
    "acme/flux": {"lora": LORA},
    f"acme/flux:{VERSION}": {"lora": LORA},
    "acme/plain": {},
    "acme/broken": {"lora": "missing.safetensors"},
}
TOKENS = ("r8_first_of_the_tokens", "r8_second_of_the_tokens")
WRONG = "r8_none_of_the_tokens"
LEAKED = "r8_leaked_by_the_client_itself"
QUEUE = 2
"""So many jobs may wait at the guarded API."""

SLOW = {"num_inference_steps": 16}
"""About two seconds, so longer than the shortest wait that can be asked for."""

IMAGE_SIZE = (320, 256)
MARK = "zebra-7731"
"""Stands in values that no answer and no log may repeat."""


@dataclass(frozen=True)
class Said:
    """What a case gave.

    Attributes:
        value: as JSON says it.
        error: type, status (None for an error without one) and text of what the client raised.
        seconds: how long it took.
    """

    value: Any
    error: dict[str, Any] | None
    seconds: float

    @property
    def given(self) -> Any:
        """Its value, where it was to have one."""
        assert self.error is None, self.error
        return self.value

    @property
    def raised(self) -> dict[str, Any]:
        """Its error, where it was to have one."""
        assert self.error is not None, self.value
        return self.error


@dataclass(frozen=True)
class Site:
    """A running ComfyUI and two APIs before it.

    Attributes:
        open: takes everybody.
        guarded: takes `TOKENS`, lets `QUEUE` jobs wait, and is reached through `front`.
        front: https address of the guarded one.
        certificate: its authority.
    """

    comfy: Comfy
    receiver: Receiver
    open: HostedApi
    guarded: HostedApi
    front: str
    certificate: Path
    folder: Path

    @cached_property
    def image(self) -> Path:
        """A picture to start from."""
        path = self.folder / "image.png"
        Image.radial_gradient("L").resize(IMAGE_SIZE).convert("RGB").save(path)
        return path

    def say(self, command: Sequence[str | Path], env: Mapping[str, str]) -> dict[str, Said]:
        """Run a script of cases; what each gave."""
        shared = {
            "SSL_CERT_FILE": str(self.certificate),
            "NODE_EXTRA_CA_CERTS": str(self.certificate),
            "REPLICATE_API_TOKEN": TOKENS[0],
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [str(word) for word in command],
            input=json.dumps(self._setting()),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            env={**clean_env(), **shared, **env},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr + self.open.log_text()[-3000:]
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {line.pop("case"): Said(**line) for line in lines}

    def _setting(self) -> dict[str, Any]:
        return {
            "open": self.open.url,
            "front": self.front,
            "receiver": self.receiver.url,
            "token": TOKENS[0],
            "others": TOKENS[1],
            "wrong": WRONG,
            "leaked": LEAKED,
            "version": VERSION,
            "lora": LORA,
            "image": str(self.image),
            "quick": QUICK,
            "slow": SLOW,
            "seed": int.from_bytes(os.urandom(3), "big"),
            "bad": bad_requests(),
        }


BAD: dict[str, tuple[Any, ...]] = {
    "prompt": (5, ["a"]),
    "image": (5, f"ftp://example.com/{MARK}"),
    "mask": (5,),
    "aspect_ratio": ("2:1", MARK),
    "height": (100, 2000, MARK),
    "width": (100, 2000, MARK),
    "prompt_strength": (1.5, -0.1, MARK),
    "model": ("pro", MARK),
    "num_outputs": (0, 5, 1.5, MARK),
    "num_inference_steps": (0, 51),
    "guidance_scale": (-1, 11),
    "seed": (-1, 2**65, MARK),
    "output_format": ("gif", MARK),
    "output_quality": (-1, 101),
    "disable_safety_checker": (MARK,),
    "go_fast": (MARK,),
    "megapixels": ("2", MARK),
    "lora": (5, {MARK: 1}),
    "lora_scale": (4, -2, MARK),
    "extra_lora": (5, [MARK]),
    "extra_lora_scale": (9, MARK),
}
"""Values that each field refuses."""


def bad_requests() -> list[tuple[str, dict[str, Any]]]:
    """Requests with one wrong field each, by the field's name and a number."""
    made: list[tuple[str, dict[str, Any]]] = [
        ("prompt missing", {name: value for name, value in QUICK.items() if name != "prompt"})
    ]
    for name, values in BAD.items():
        made += [(f"{name} {index}", {**QUICK, name: value}) for index, value in enumerate(values)]
    return made
