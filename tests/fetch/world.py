"""Fixtures for the tests that fetch: servers, settings that allow them, and an empty store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fetch.servers import Server
from flux_hotswap.files.addresses import AllowList, origin
from flux_hotswap.files.settings import Endpoints, Settings
from flux_hotswap.files.tokens import Tokens
from flux_hotswap.lora_fetch.fetch import Fetched, fetch
from flux_hotswap.lora_fetch.store import Store

HUB_TOKEN, CIVITAI_TOKEN, REPLICATE_TOKEN = "hf_secret1", "civitai-secret2", "r8_secret3"
SECRETS = (HUB_TOKEN, CIVITAI_TOKEN, REPLICATE_TOKEN)


@dataclass
class Clock:
    """A clock that only moves when somebody sleeps or a test says so."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class World:
    """The three services, a file server beside them, and a loras folder."""

    hub: Server
    civitai: Server
    replicate: Server
    api: Server
    cdn: Server
    clock: Clock
    loras: Path
    settings: Settings

    @property
    def store(self) -> Store:
        """A store as a new process would open it."""
        return Store(self.loras, self.settings)

    def use(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

    def fetch(self, text: str, **more: Any) -> Fetched:
        return fetch(text, store=self.store, settings=self.settings, **more)

    def leftovers(self) -> list[str]:
        """What a fetch must not leave behind."""
        work = self.loras / "flux-hotswap" / ".work"
        return sorted(p.name for p in work.glob("*") if p.suffix not in (".lock",))


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(**options: Any) -> Server:
        made.append(Server(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def services() -> Iterator[list[Server]]:
    """Servers for all tests; to start and stop five of them takes longer than most tests."""
    made = [Server() for _ in range(5)]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(services: list[Server], clock: Clock, tmp_path: Path) -> World:
    for one in services:
        one.reset()
    hub, civitai, replicate, api, cdn = services
    endpoints = Endpoints(
        hub=hub.url, civitai=civitai.url, replicate=replicate.url, replicate_api=api.url
    )
    tokens = {
        origin(hub.url): HUB_TOKEN,
        origin(civitai.url): CIVITAI_TOKEN,
        origin(api.url): REPLICATE_TOKEN,
    }
    settings = Settings(
        endpoints=endpoints,
        tokens=Tokens(tokens),
        allow=AllowList.parse("127.0.0.1"),
        reserve_bytes=0,
        clock=clock,
        sleep=clock.sleep,
        connect_timeout=5,
        read_timeout=5,
    )
    return World(hub, civitai, replicate, api, cdn, clock, tmp_path / "loras", settings)


# --- helpers of several test files ---


def index(world: World) -> Path:
    return world.loras / "flux-hotswap" / "index.json"


def files(world: World) -> set[str]:
    return {path.name for path in world.loras.rglob("*.safetensors")}


def entry_of(world: World) -> Any:
    return next(iter(world.store.entries().values()))
