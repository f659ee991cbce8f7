"""Servers that behave as Hugging Face, CivitAI and Replicate do, and the files that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fetch.servers import Request, lora, sha256
from fetch.services import (
    COMMIT,
    DATA,
    OTHER,
    VERSION,
    answer,
    civitai,
    redirect,
    refusal,
    repository,
    sent,
    trained,
)
from fetch.world import CIVITAI_TOKEN, HUB_TOKEN, REPLICATE_TOKEN, World
from flux_hotswap.errors import (
    FetchError,
    NotAuthorisedError,
    NotFoundError,
    OfflineError,
    RefusedError,
)
from flux_hotswap.files.net import Client
from flux_hotswap.files.tokens import Tokens
from flux_hotswap.lora_fetch.api import Api
from flux_hotswap.lora_fetch.services.huggingface import HuggingFace, choose
from flux_hotswap.lora_fetch.services.local import LocalFile


def test_hub_repository_with_one_file(world: World) -> None:
    repository(world, "README.md", "deep/er/x.safetensors")
    found = world.fetch("hf:a/b")
    assert found.path.read_bytes() == DATA
    assert found.path.parent == world.loras / "flux-hotswap"
    assert found.path.name == f"a-b-x-{sha256(DATA)[:8]}.safetensors"
    assert (found.revision, found.from_cache, found.warnings) == (COMMIT, False, ())
    assert sent(world.hub) == {f"Bearer {HUB_TOKEN}"}
    assert sent(world.cdn) == {None}


def test_hub_file_is_taken_at_the_commit_that_was_looked_up(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("https://huggingface.co/a/b/blob/main/x.safetensors")
    assert [seen.method for seen in world.hub.seen] == ["HEAD", "GET"]
    assert world.hub.seen[1].path == f"/a/b/resolve/{COMMIT}/x.safetensors"


def test_hub_hash_is_checked(world: World) -> None:
    repository(world, "x.safetensors")
    world.cdn.file(f"/{sha256(DATA)}", OTHER)
    with pytest.raises(FetchError, match="SHA-256"):
        world.fetch("hf:a/b")
    assert world.leftovers() == []


def test_hub_size_is_checked_before_the_bytes(world: World) -> None:
    repository(world, "x.safetensors")
    world.cdn.file(f"/{sha256(DATA)}", OTHER + b"more")
    with pytest.raises(FetchError, match="the source says"):
        world.fetch("hf:a/b")


def test_hub_size_is_checked_at_the_end_where_it_was_not_told(world: World) -> None:
    repository(world, "x.safetensors")
    target = f"/{sha256(DATA)}"
    longer = lora(20_500)

    def untold(request: Request) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(longer)
        request.close_connection = True

    world.cdn.routes[target] = untold
    with pytest.raises(FetchError, match="the source says"):
        world.fetch("hf:a/b")


def test_local_sources_have_no_address(world: World) -> None:
    source = LocalFile("a.safetensors")
    with Client(world.settings) as client, pytest.raises(TypeError):
        source.resolve(Api(source.asked(), client, lambda: False), probe=False)


def test_hub_moved_repository_is_followed_within_the_hub(world: World) -> None:
    repository(world, "x.safetensors")
    world.hub.routes["/old/name/resolve/main/x.safetensors"] = redirect(
        "/a/b/resolve/main/x.safetensors", 307
    )
    world.hub.routes[f"/old/name/resolve/{COMMIT}/x.safetensors"] = redirect(
        f"/a/b/resolve/{COMMIT}/x.safetensors", 307
    )
    assert world.fetch("hf:old/name/x.safetensors").revision == COMMIT


def test_hub_small_file_without_lfs(world: World) -> None:
    def plain(request: Request) -> None:
        request.reply(200, DATA, etag='"0123"', x_repo_commit=COMMIT)

    world.hub.routes["/a/b/resolve/main/x.safetensors"] = plain
    world.hub.routes[f"/a/b/resolve/{COMMIT}/x.safetensors"] = plain
    assert world.fetch("hf:a/b/x.safetensors").sha256 == sha256(DATA)


def test_hub_tree_in_pages(world: World) -> None:
    repository(world, "x.safetensors")
    tree = "/api/models/a/b/tree/main"
    last = world.hub.routes[tree]

    def pages(request: Request) -> None:
        if "cursor" in request.path:
            last(request)
        else:
            request.reply_json([{"path": "README.md"}], link=f'<{tree}?cursor=1>; rel="next"')

    world.hub.routes[tree] = pages
    assert world.fetch("hf:a/b").sha256 == sha256(DATA)


@pytest.mark.parametrize(
    ("link", "error"),
    [("http://127.0.0.1:9/x", OfflineError), ("/api/models/a/b/tree/main?again=1", NotFoundError)],
    ids=["elsewhere", "endless"],
)
def test_hub_tree_that_leads_astray(world: World, link: str, error: type[FetchError]) -> None:
    world.hub.routes["/api/models/a/b/tree/main"] = answer([], link=f'<{link}>; rel="next"')
    with pytest.raises(error):
        world.fetch("hf:a/b")


CHOICES: list[tuple[str, list[str], str | None]] = [
    ("hf:a/b", ["x.safetensors"], "x.safetensors"),
    ("hf:a/b", ["deep/x.safetensors", "x.txt", "x.safetensors.index.json"], "deep/x.safetensors"),
    ("hf:a/b", ["x.safetensors", "my_LoRA.safetensors"], "my_LoRA.safetensors"),
    ("hf:a/b", ["x.safetensors", "deep/lora.safetensors"], None),
    ("hf:a/b", ["a-lora.safetensors", "b-lora.safetensors"], None),
    ("hf:a/b", ["a-lora.safetensors", "lora.safetensors"], "lora.safetensors"),
    ("hf:a/b", ["lora.safetensors", "pytorch_lora_weights.safetensors"], "pytorch_lora_weights"),
    ("hf:a/b/sub", ["x.safetensors", "sub/y.safetensors"], "sub/y.safetensors"),
    ("hf:a/b/sub", ["sub/lora.safetensors", "sub/y.safetensors"], "sub/lora.safetensors"),
    ("hf:a/b", [f"{n}.safetensors" for n in range(30)], None),
    ("hf:a/b", ["x.bin"], None),
]


@pytest.mark.parametrize(("source", "files", "expected"), CHOICES)
def test_hub_choice(source: str, files: list[str], expected: str | None) -> None:
    repo = HuggingFace("a/b", None, source.removeprefix("hf:a/b").strip("/") or None)
    if expected is None:
        with pytest.raises(NotFoundError) as caught:
            choose(repo, files)
        assert len(files) == 1 or "hf:a/b/" in str(caught.value)
    else:
        assert choose(repo, files).startswith(expected)


HUB_ERRORS = [
    (401, "GatedRepo", NotAuthorisedError, "Accept its terms", True),
    (401, "GatedRepo", NotAuthorisedError, "then set HF_TOKEN", False),
    (404, "RevisionNotFound", NotFoundError, "no revision", True),
    (404, "EntryNotFound", NotFoundError, "no file", True),
    (401, "RepoNotFound", NotFoundError, "check the name.", True),
    (401, "RepoNotFound", NotFoundError, "set HF_TOKEN if it is private", False),
    (404, "", NotFoundError, "no such repository", True),
    (401, "", NotAuthorisedError, "Set HF_TOKEN", False),
    (403, "", NotAuthorisedError, "does not reach it", True),
    (503, "", OfflineError, "busy or failing", True),
]


@pytest.mark.parametrize(("status", "code", "error", "words", "token"), HUB_ERRORS)
def test_hub_errors(
    world: World, status: int, code: str, error: type[FetchError], words: str, token: bool
) -> None:
    if not token:
        world.use(tokens=Tokens())
    headers = {"x_error_code": code, "x_error_message": f"no {HUB_TOKEN}"} if code else {}
    world.hub.fallback = refusal(status, b"", **headers)
    with pytest.raises(error, match=words) as caught:
        world.fetch("hf:a/b@dev/x.safetensors")
    assert "hf:a/b@dev/x.safetensors" in str(caught.value)
    assert HUB_TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["civitai.com/models/12345/slug", "civitai:12345@678", "civitai:@678"]
)
def test_civitai_page_to_file(world: World, text: str) -> None:
    civitai(world)
    found = world.fetch(text)
    assert found.path.read_bytes() == DATA
    assert found.trigger_words == ("TOK", "in the style of TOK")
    assert found.revision == "678/9"
    assert "My-Style-v1" in found.path.name
    assert world.civitai.seen[-1].path == "/api/download/models/678?fileId=9"
    assert sent(world.civitai) == {f"Bearer {CIVITAI_TOKEN}"}
    assert sent(world.cdn) == {None}
    agents = {seen.headers["user-agent"] for seen in world.civitai.seen}
    assert not any("mozilla" in agent.lower() for agent in agents)


def test_civitai_prefers_the_version_for_flux(world: World) -> None:
    civitai(world, modelVersions=[{**VERSION, "id": 999, "baseModel": "SDXL 1.0"}, VERSION])
    found = world.fetch("civitai:12345")
    assert (found.revision, found.warnings) == ("678/9", ())


def test_civitai_for_another_model_is_told(world: World) -> None:
    civitai(world, {**VERSION, "baseModel": "SDXL 1.0", "trainedWords": None})
    found = world.fetch("civitai:12345")
    assert "SDXL 1.0" in found.warnings[0]
    assert found.trigger_words == ()


@pytest.mark.parametrize(("query", "number"), [("fileId=10", "10"), ("fp=fp32", "10")])
def test_civitai_other_file(world: World, query: str, number: str) -> None:
    civitai(world)
    world.fetch(f"https://civitai.com/models/12345?modelVersionId=678&{query}")
    assert world.civitai.seen[-1].path == f"/api/download/models/678?fileId={number}"


CIVITAI_ANSWERS: list[tuple[str, dict[str, Any], dict[str, Any], type[FetchError], str]] = [
    ("civitai:12345", {"mode": "TakenDown"}, {}, NotFoundError, "taken down"),
    ("civitai:12345", {"type": "Checkpoint"}, {}, NotFoundError, "is a Checkpoint"),
    ("civitai:12345", {"modelVersions": []}, {}, NotFoundError, "no published version"),
    ("civitai:12345", {"modelVersions": 5}, {}, NotFoundError, "no published version"),
    ("civitai:12345", {}, {"files": []}, NotFoundError, "it has no file"),
    ("civitai:12345?fileId=5", {}, {}, NotFoundError, "fileId=9"),
    ("civitai:1@678", {}, {}, NotFoundError, "belongs to model 12345"),
    ("civitai:@678", {}, {"model": {"type": "Checkpoint"}}, NotFoundError, "not a LoRA"),
    ("civitai:@678", {}, {"id": None}, NotFoundError, "no such version"),
    (
        "civitai:@678",
        {},
        {"files": [{**VERSION["files"][1], "virusScanResult": "Danger"}]},  # pyright: ignore[reportIndexIssue]
        RefusedError,
        "unsafe",
    ),
]


@pytest.mark.parametrize(("text", "model", "version", "error", "words"), CIVITAI_ANSWERS)
def test_civitai_answers(
    world: World,
    text: str,
    model: dict[str, Any],
    version: dict[str, Any],
    error: type[FetchError],
    words: str,
) -> None:
    civitai(world, {**VERSION, **version}, **model)
    with pytest.raises(error, match=words):
        world.fetch(text)


CIVITAI_ERRORS: list[tuple[int, Any, type[FetchError], str, bool]] = [
    (401, {"error": "Unauthorized"}, NotAuthorisedError, "set CIVITAI_API_TOKEN", False),
    (401, {"error": "Unauthorized"}, NotAuthorisedError, "make a new one", True),
    (401, {"message": "The creator disabled downloads"}, NotAuthorisedError, "disabled", True),
    (403, {"message": "Early Access until May"}, NotAuthorisedError, "until May", True),
    (404, {"error": {"deep": 1}}, NotFoundError, "no such model", True),
    (410, [], NotFoundError, "no such model", True),
    (400, "text", NotFoundError, "no such model", True),
    (429, {"error": f"slow down {CIVITAI_TOKEN}"}, OfflineError, "slow down", True),
]


@pytest.mark.parametrize(("status", "body", "error", "words", "token"), CIVITAI_ERRORS)
def test_civitai_errors(
    world: World, status: int, body: Any, error: type[FetchError], words: str, token: bool
) -> None:
    if not token:
        world.use(tokens=Tokens())
    civitai(world)
    world.civitai.routes["/api/download/models/678"] = answer(body, status)
    with pytest.raises(error, match=words) as caught:
        world.fetch("civitai:12345")
    assert CIVITAI_TOKEN not in str(caught.value)


def test_an_api_that_answers_with_a_page(world: World) -> None:
    world.civitai.fallback = refusal(200, b"<html>")
    with pytest.raises(OfflineError, match="not JSON"):
        world.fetch("civitai:12345")


def test_an_error_in_broken_json(world: World) -> None:
    world.civitai.fallback = refusal(404, b"{", content_type="application/json")
    with pytest.raises(NotFoundError, match=r"HTTP 404\)"):
        world.fetch("civitai:12345")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("fofr/cars", "/fofr/cars/_weights"),
        ("fofr/cars:132c98d2", "/fofr/cars/versions/132c98d2/_weights"),
        ("https://replicate.com/fofr/cars/versions/132c98d2/", None),
    ],
)
def test_replicate_weights(world: World, text: str, path: str | None) -> None:
    route = path or "/fofr/cars/versions/132c98d2/_weights"
    world.replicate.routes[route] = redirect(trained(world) + "?expires=1")
    found = world.fetch(text)
    assert found.path.read_bytes() == DATA
    assert found.path.name == f"fofr-cars-{sha256(DATA)[:8]}.safetensors"
    assert found.revision == f"{world.cdn.url}/x/trained_model.tar"
    assert sent(world.replicate) == sent(world.cdn) == {None}


def test_replicate_that_sends_the_tar_itself(world: World) -> None:
    trained(world)
    world.replicate.routes["/a/b/_weights"] = world.cdn.routes["/x/trained_model.tar"]
    assert world.fetch("a/b").sha256 == sha256(DATA)


REPLICATE_ERRORS: list[tuple[Callable[[Request], None], type[FetchError], str]] = [
    (refusal(404), NotFoundError, "hf:a/b"),
    (refusal(403), NotAuthorisedError, "not public"),
    (refusal(200, b"<html>", content_type="text/html"), NotAuthorisedError, "shows a page"),
]


@pytest.mark.parametrize(("route", "error", "words"), REPLICATE_ERRORS)
@pytest.mark.parametrize("token", [True, False])
def test_replicate_errors(
    world: World,
    route: Callable[[Request], None],
    error: type[FetchError],
    words: str,
    token: bool,
) -> None:
    if not token:
        world.use(tokens=Tokens())
    world.replicate.routes["/a/b/_weights"] = route
    with pytest.raises(error, match=words):
        world.fetch("a/b")
    assert bool(world.api.seen) is token


def test_replicate_private_model_is_told_with_the_users_token(world: World) -> None:
    world.api.routes["/v1/models/a/b"] = answer({"visibility": "private"})
    with pytest.raises(NotAuthorisedError, match=r"exists.*private"):
        world.fetch("a/b")
    assert sent(world.api) == {f"Bearer {REPLICATE_TOKEN}"}


@pytest.mark.parametrize("status", [401, 404])
def test_link_errors(world: World, status: int) -> None:
    world.cdn.fallback = refusal(status)
    with pytest.raises(FetchError, match=f"HTTP {status}") as caught:
        world.fetch(world.cdn.url + "/a.safetensors?sig=SECRET")
    assert "SECRET" not in str(caught.value)


def test_link_with_a_hash(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    assert world.fetch(f"{url}#sha256={sha256(DATA)}").sha256 == sha256(DATA)
    with pytest.raises(FetchError, match="SHA-256"):
        world.fetch(f"{url}#sha256={sha256(OTHER)}")


def test_link_that_is_signed_and_expires_on_the_way(world: World) -> None:
    """The second request goes to the start again, where a fresh signature is given out."""
    target = world.cdn.file("/signed", DATA, cut=[5000], statuses=[])
    turns: list[int] = []

    def start(request: Request) -> None:
        turns.append(1)
        request.reply(302, b"", location=f"{target}?turn={len(turns)}")

    def signed(request: Request) -> None:
        if f"turn={len(turns)}" in request.path and len(turns) != 2:
            file(request)
        else:
            request.reply(403, b"expired")

    file = world.cdn.routes["/signed"]
    world.cdn.routes["/signed"] = signed
    world.hub.routes["/a.safetensors"] = start
    assert world.fetch(world.hub.url + "/a.safetensors").sha256 == sha256(DATA)
    assert len(turns) == 3
