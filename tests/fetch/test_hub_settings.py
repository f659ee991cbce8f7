"""PEFT's settings on Hugging Face, which come with the file that they belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fetch.servers import Request, sha256
from fetch.services import COMMIT, DATA, answer, refusal, repository
from fetch.world import World
from flux_hotswap.errors import OfflineError, RefusedError
from flux_hotswap.lora_fetch.fetch import Fetched

PEFT = "adapter_model.safetensors"
CONFIG = {"peft_type": "LORA", "lora_alpha": 16, "r": 4}


def beside(world: World) -> list[dict[str, Any]]:
    """The settings that lie in the loras folder."""
    return [json.loads(path.read_text()) for path in world.loras.rglob("*.adapter_config.json")]


def settings_of(found: Fetched) -> dict[str, Any] | None:
    path = found.path.with_suffix(".adapter_config.json")
    return json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("folder", ["", "deep/er/"])
def test_hub_settings_of_peft_come_with_the_file(world: World, folder: str) -> None:
    """Its alphas stand in a file of their own, taken at the same commit."""
    repository(world, f"{folder}{PEFT}")
    world.hub.routes[f"/a/b/resolve/{COMMIT}/{folder}adapter_config.json"] = answer(CONFIG)
    found = world.fetch("hf:a/b")
    assert found.path.with_suffix(".adapter_config.json").is_file()
    assert beside(world) == [CONFIG]
    assert world.leftovers() == []
    count = len(world.hub.seen)
    assert world.fetch("hf:a/b").from_cache
    assert len(world.hub.seen) == count
    assert world.store.prune(keep_bytes=0) == [found.path.name]
    assert beside(world) == []


def test_hub_settings_that_are_not_there_are_no_error(world: World) -> None:
    repository(world, PEFT)
    assert world.fetch("hf:a/b").path.read_bytes() == DATA
    assert beside(world) == []


def test_hub_settings_are_asked_for_where_peft_keeps_them_alone(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    assert not [seen for seen in world.hub.seen if seen.path.endswith(".json")]


def test_hub_settings_that_cannot_be_had_leave_no_file_without(world: World) -> None:
    repository(world, PEFT)
    world.hub.routes[f"/a/b/resolve/{COMMIT}/adapter_config.json"] = refusal(503)
    with pytest.raises(OfflineError):
        world.fetch("hf:a/b")
    assert list(world.loras.rglob("*.safetensors")) == []


def test_hub_settings_that_changed_are_looked_up_with_the_name(world: World) -> None:
    repository(world, PEFT)
    route = f"/a/b/resolve/{COMMIT}/adapter_config.json"
    world.hub.routes[route] = answer(CONFIG)
    world.fetch("hf:a/b")
    world.hub.routes[route] = answer({**CONFIG, "lora_alpha": 8})
    world.clock.now += world.settings.recheck_after + 1
    world.fetch("hf:a/b")
    assert [config["lora_alpha"] for config in beside(world)] == [8]


@pytest.mark.parametrize("config", [{**CONFIG, "lora_alpha": 4000}, None], ids=["other", "none"])
@pytest.mark.parametrize("published", [True, False], ids=["by hash", "fetched"])
def test_hub_settings_of_another_source_of_the_same_bytes(
    world: World, config: dict[str, Any] | None, published: bool
) -> None:
    """Whoever copies a LoRA does not change how strong the original is."""
    repository(world, PEFT)
    route = f"/a/b/resolve/{COMMIT}/adapter_config.json"
    world.hub.routes[route] = answer(CONFIG)
    first = world.fetch("hf:a/b")
    world.hub.routes = {p.replace("/a/b", "/e/c"): r for p, r in world.hub.routes.items()}
    world.hub.routes[route.replace("/a/b", "/e/c")] = answer(config) if config else refusal(404)
    text = "hf:e/c"
    if not published:
        text = world.cdn.file("/copy.safetensors", DATA)
        config = None
    second = world.fetch(text)
    assert second.path.read_bytes() == first.path.read_bytes() == DATA
    assert settings_of(first) == CONFIG
    assert settings_of(second) == config
    assert world.fetch("hf:a/b").path == first.path


def test_hub_settings_that_are_the_same_share_a_file(world: World) -> None:
    repository(world, PEFT)
    world.hub.routes[f"/a/b/resolve/{COMMIT}/adapter_config.json"] = answer(CONFIG)
    first = world.fetch("hf:a/b")
    world.hub.routes |= {p.replace("/a/b", "/e/c"): r for p, r in world.hub.routes.items()}
    found = world.fetch("hf:e/c")
    assert (found.path, found.from_cache) == (first.path, True)
    assert settings_of(found) == CONFIG


@pytest.mark.parametrize("depth", [500, 900, 960, 975, 985, 2_000])
def test_hub_settings_of_any_depth(world: World, depth: int) -> None:
    """In words, from wherever it is called."""
    repository(world, PEFT)
    body = b"[" * depth + b"]" * depth
    route = f"/a/b/resolve/{COMMIT}/adapter_config.json"
    world.hub.routes[route] = refusal(200, body, content_type="application/json")

    def deeper(left: int) -> str:
        return deeper(left - 1) if left else world.fetch("hf:a/b").sha256

    try:
        assert deeper(60) == sha256(DATA)
    except OfflineError as error:
        assert "not JSON" in str(error)


def test_hub_settings_that_are_too_large_are_not_read(world: World) -> None:
    repository(world, PEFT)
    body = b"[" + b"[]," * 10 * 2**20 + b"[]]"
    sent = [0]

    def route(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for at in range(0, len(body), 2**16):
            sent[0] += request.wfile.write(body[at : at + 2**16])

    world.hub.routes[f"/a/b/resolve/{COMMIT}/adapter_config.json"] = route
    with pytest.raises(RefusedError, match=r"adapter_config\.json is larger than 1048576 bytes"):
        world.fetch("hf:a/b")
    assert sent[0] < len(body) / 2
    assert list(world.loras.rglob("*.safetensors")) == []
