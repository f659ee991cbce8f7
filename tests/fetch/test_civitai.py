"""CivitAI as people meet it: logins, early access, FLUX.2, addresses that moved or hide a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

import pytest

from fetch.servers import Request, sha256
from fetch.services import (
    DATA,
    OTHER,
    PAGE,
    REDIRECTS,
    VERSION,
    answer,
    civitai,
    redirect,
    refusal,
    sent,
)
from fetch.world import CIVITAI_TOKEN, World
from flux_hotswap.errors import NotAuthorisedError, NotFoundError
from flux_hotswap.files.tokens import Tokens

FILE = cast("list[dict[str, Any]]", VERSION["files"])[1]
OLD = {**VERSION, "id": 600, "files": [{**FILE, "id": 8}]}
NEW = {**VERSION, "id": 999, "files": [{**FILE, "hashes": {"SHA256": sha256(OTHER)}}]}
EARLY = {**NEW, "availability": "EarlyAccess"}


def page(world: World, *versions: dict[str, Any]) -> None:
    """A model's page with these versions, and the download of each at the file server."""
    civitai(world, modelVersions=list(versions))
    for version in versions:
        target = world.cdn.file(f"/{version['id']}", OTHER if version["id"] == 999 else DATA)
        world.civitai.routes[f"/api/download/models/{version['id']}"] = redirect(target)


def downloads(world: World) -> list[str]:
    """The versions that were asked for; a refused token makes two requests of one."""
    found = [seen.path.split("?")[0] for seen in world.civitai.asked("/api/download")]
    return [path.rsplit("/", 1)[-1] for path, _ in groupby(found)]


@pytest.mark.parametrize("status", REDIRECTS)
def test_civitai_that_moved(world: World, status: int) -> None:
    civitai(world)
    routes, world.civitai.routes = world.civitai.routes, {}
    world.replicate.routes = routes
    world.civitai.fallback = lambda request: request.reply(
        status, b"", location=world.replicate.url + request.path
    )
    assert world.fetch("civitai:12345").path.read_bytes() == DATA
    assert sent(world.replicate) == {None}


LOGINS = ["/login?returnUrl=%2Fmodels%2F12345&reason=download-auth", "/login", "/login/"]


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("route", [PAGE, refusal(403), refusal(404), refusal(503)])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_civitai_that_redirects_to_its_login(
    world: World, status: int, login: str, route: Callable[[Request], None], elsewhere: bool
) -> None:
    world.use(tokens=Tokens())
    civitai(world)
    host = world.replicate if elsewhere else world.civitai
    world.civitai.routes["/api/download/models/678"] = redirect(host.url + login, status)
    host.routes[login.split("?", maxsplit=1)[0]] = route
    with pytest.raises(NotAuthorisedError, match="set CIVITAI_API_TOKEN"):
        world.fetch("civitai:12345@678")
    assert world.leftovers() == []


def test_civitai_that_redirects_to_its_login_in_spite_of_a_token(world: World) -> None:
    civitai(world)
    world.civitai.routes["/api/download/models/678"] = redirect("/login")
    world.civitai.routes["/login"] = PAGE
    with pytest.raises(NotAuthorisedError, match="is not accepted: make a new one"):
        world.fetch("civitai:12345@678")


EARLY_ANSWERS = [
    answer({"error": "Unauthorized", "message": "This asset is in Early Access."}, 401),
    answer({"error": "Early Access", "deadline": "2030-01-01"}, 403),
    answer({"message": "Early access until May"}, 402),
    redirect("/join?reason=early-access&returnUrl=%2Fmodels%2F12345"),
    redirect("/models/12345?modelVersionId=999", 307),
    redirect("/model-versions/999", 308),
]
EARLY_IDS = ["json-401", "json-403", "json-402", "join", "model", "version"]


@pytest.fixture
def early(world: World) -> World:
    for path in ("/join", "/models/12345", "/model-versions/999"):
        world.civitai.routes[path] = PAGE
    return world


@pytest.mark.parametrize("route", EARLY_ANSWERS, ids=EARLY_IDS)
@pytest.mark.parametrize("marked", [True, False])
def test_early_access_ends_in_the_newest_file_that_can_be_had(
    early: World, route: Callable[[Request], None], marked: bool
) -> None:
    page(early, EARLY if marked else NEW, VERSION, OLD)
    early.civitai.routes["/api/download/models/999"] = route
    found = early.fetch("civitai:12345")
    assert found.revision == "678/9"
    assert downloads(early) == ["999", "678"]
    assert "civitai:12345@999" in found.warnings[0]
    early.clock.now += 30 * 3600
    again = early.fetch("civitai:12345")
    assert (again.revision, again.from_cache) == ("678/9", True)
    early.civitai.file("/api/download/models/999", OTHER)
    early.clock.now += 30 * 3600
    assert early.fetch("civitai:12345").revision == "999/9"


@pytest.mark.parametrize("route", EARLY_ANSWERS, ids=EARLY_IDS)
@pytest.mark.parametrize("text", ["civitai:12345@999", "civitai:12345"])
def test_early_access_is_told_where_there_is_nothing_else(
    early: World, route: Callable[[Request], None], text: str
) -> None:
    page(early, EARLY)
    early.civitai.routes["/api/v1/model-versions/999"] = answer(EARLY)
    early.civitai.routes["/api/download/models/999"] = route
    with pytest.raises(NotAuthorisedError, match="is in early access") as caught:
        early.fetch(text)
    assert "make a new one" not in str(caught.value)
    assert "Buy it on its page" in str(caught.value)


def test_early_access_that_was_bought(world: World) -> None:
    page(world, EARLY, VERSION)
    found = world.fetch("civitai:12345")
    assert (found.revision, found.warnings) == ("999/9", ())


def test_early_access_is_not_asked_for_without_a_token(world: World) -> None:
    page(world, EARLY, VERSION)
    world.use(tokens=Tokens())
    assert world.fetch("civitai:12345").revision == "678/9"
    assert downloads(world) == ["678"]


def test_early_access_leads_to_no_version_that_is_in_it_or_has_no_file(world: World) -> None:
    world.use(tokens=Tokens())
    page(world, EARLY, {**EARLY, "id": 998}, OLD)
    assert world.fetch("civitai:12345").revision == "600/8"
    page(world, EARLY, {**VERSION, "files": []})
    world.civitai.routes["/api/download/models/999"] = EARLY_ANSWERS[0]
    with pytest.raises(NotAuthorisedError, match="is in early access"):
        world.fetch("civitai:12345?fp=fp16")


def test_a_refusal_for_another_reason_leads_to_no_older_version(world: World) -> None:
    page(world, NEW, VERSION)
    disabled = answer({"message": "The creator disabled downloads"}, 401)
    world.civitai.routes["/api/download/models/999"] = disabled
    with pytest.raises(NotAuthorisedError, match="disabled"):
        world.fetch("civitai:12345")


def test_early_access_of_a_file_without_a_published_hash(early: World) -> None:
    plain = {**VERSION, "files": [{**FILE, "hashes": {}}]}
    page(early, EARLY, plain)
    early.civitai.routes["/api/download/models/999"] = EARLY_ANSWERS[0]
    early.fetch("civitai:12345")
    early.clock.now += 30 * 3600
    assert early.fetch("civitai:12345").from_cache
    assert downloads(early) == ["999", "678", "999"]


BASES = [
    *(("Flux.1 D", True), ("Flux.1 S", True), ("Flux.1 Krea", True), ("Flux.1 Kontext", True)),
    *(("flux1", True), ("FLUX", True), ("Flux Dev", True), ("Flux.2 D", False)),
    *(("Flux.2 Klein 9B", False), ("Flux.2 Klein 4B-base", False), ("flux2", False)),
    *(("Flux.10", False), ("Flux 3", False), ("SDXL 1.0", False), ("Pony", False)),
]


@pytest.mark.parametrize(("base", "first"), BASES)
def test_which_base_models_are_flux1(world: World, base: str, first: bool) -> None:
    page(world, {**NEW, "baseModel": base}, VERSION)
    assert world.fetch("civitai:12345").revision == ("999/9" if first else "678/9")
    world.civitai.routes["/api/v1/model-versions/678"] = answer({**VERSION, "baseModel": base})
    warnings = world.fetch("civitai:12345@678").warnings
    assert bool(warnings) is not first
    assert first or f"made for {base}, not for FLUX.1" in warnings[0]


@pytest.mark.parametrize("text", ["https://civitai.red/models/12345", "civitai:12345@678"])
def test_a_model_that_only_the_twin_shows(world: World, text: str) -> None:
    civitai(world)
    api = {k: v for k, v in world.civitai.routes.items() if k.startswith("/api/v1")}
    world.replicate.routes = api
    for path in api:
        del world.civitai.routes[path]
    with pytest.raises(NotFoundError):
        world.fetch(text)
    endpoints = replace(world.settings.endpoints, civitai_twin=world.replicate.url)
    world.use(endpoints=endpoints)
    assert world.fetch(text).revision == "678/9"
    assert sent(world.replicate) == {None}
    assert sent(world.civitai) == {f"Bearer {CIVITAI_TOKEN}"}


@pytest.mark.parametrize("route", [refusal(404), refusal(403), refusal(503), PAGE])
def test_a_twin_that_knows_nothing_either(world: World, route: Callable[[Request], None]) -> None:
    endpoints = replace(world.settings.endpoints, civitai_twin=world.replicate.url)
    world.use(endpoints=endpoints)
    world.replicate.fallback = route
    with pytest.raises(NotFoundError, match="CivitAI has no such model"):
        world.fetch("civitai:12345")
    assert len(world.replicate.seen) == 1


def test_a_download_that_moves_to_the_twin_and_wants_a_login_there(world: World) -> None:
    civitai(world)
    there = world.replicate.url + "/api/download/models/678"
    world.civitai.routes["/api/download/models/678"] = redirect(there)
    said = answer({"error": "The creator of this asset requires you to be logged in"}, 401)
    world.replicate.routes["/api/download/models/678"] = said
    with pytest.raises(NotAuthorisedError, match=r"requires you to be.*is not sent to 127"):
        world.fetch("civitai:12345")
    assert sent(world.replicate) == {None}
