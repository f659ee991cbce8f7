"""PEFT's settings on Hugging Face, which come with the file that they belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fetch.services import COMMIT, DATA, answer, refusal, repository
from fetch.world import World
from flux_hotswap.errors import OfflineError

PEFT = "adapter_model.safetensors"
CONFIG = {"peft_type": "LORA", "lora_alpha": 16, "r": 4}


def beside(world: World) -> list[dict[str, Any]]:
    """The settings that lie in the loras folder."""
    return [json.loads(path.read_text()) for path in world.loras.rglob("*.adapter_config.json")]


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
    assert world.store.forget(found.path.name)
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
    assert world.fetch("hf:a/b").from_cache
    assert beside(world)[0]["lora_alpha"] == 8
