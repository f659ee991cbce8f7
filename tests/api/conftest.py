"""One real ComfyUI with the small FLUX, and our API before it: open to all, and guarded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mini_flux import loras
from runtime.session import Comfy

from api.front import Front, make_certificate
from api.hosted import HostedApi
from api.receiver import Receiver
from api.site import LORA, NAMES, QUEUE, TOKENS, Site


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Where webhooks go."""
    made = Receiver()
    with closing(made):
        yield made


@pytest.fixture(scope="session")
def site(
    comfy: Comfy, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Two of our APIs over one ComfyUI; the model of some names is a LoRA of its folder."""
    folder = tmp_path_factory.mktemp("api")
    put_lora(comfy.server.models_dir / "loras" / LORA)
    names, tokens = folder / "names.json", folder / "tokens.txt"
    names.write_text(json.dumps(NAMES), encoding="utf-8")
    tokens.write_text("\n".join(TOKENS), encoding="utf-8")
    certificate, key = make_certificate(folder)
    env = {"FLUX_HOTSWAP_ALLOW_HOSTS": f"127.0.0.1:{receiver.port}"}
    front = Front(certificate, key)
    guards = ("--tokens", str(tokens), "--queue", str(QUEUE), "--public", front.url)
    named = ("--names", str(names))
    with (
        closing(front),
        HostedApi(folder / "open", comfy.server.url, *named, env=env) as open_api,
        HostedApi(folder / "guarded", comfy.server.url, *named, *guards, env=env) as guarded,
    ):
        front.lead_to(guarded.url)
        yield Site(comfy, receiver, open_api, guarded, front.url, certificate, folder)


def put_lora(path: Path) -> None:
    """Write a LoRA that changes every picture."""
    path.parent.mkdir(exist_ok=True)
    loras.write(loras.diffusers(loras.blocks(seed=1)), path)
