"""Where links lead: mirrors, refused tokens, listed names, pages, and what servers say."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fetch.servers import File, Request, sha256, tar
from fetch.services import (
    COMMIT,
    DATA,
    PAGE,
    REDIRECTS,
    civitai,
    guard,
    guarded,
    redirect,
    refusal,
    repository,
    sent,
    trained,
)
from fetch.world import HUB_TOKEN, REPLICATE_TOKEN, SECRETS, World
from flux_hotswap.errors import (
    BadFileError,
    FetchError,
    NotAuthorisedError,
    NotFoundError,
    OfflineError,
)
from flux_hotswap.files.addresses import origin
from flux_hotswap.files.tokens import Tokens

# --- a mirror that redirects ---


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("text", ["hf:a/b", "hf:a/b/x.safetensors", "hf:a/b@main"])
def test_a_mirror_of_the_hub_that_redirects(world: World, status: int, text: str) -> None:
    repository(world, "x.safetensors")
    mirror = world.api
    mirror.fallback = lambda request: request.reply(
        status, b"", location=world.hub.url + request.path
    )
    tokens = Tokens({origin(mirror.url): HUB_TOKEN})
    world.use(endpoints=replace(world.settings.endpoints, hub=mirror.url), tokens=tokens)
    found = world.fetch(text)
    assert found.path.read_bytes() == DATA
    assert (found.revision, found.warnings) == (COMMIT, ())
    assert sent(mirror) == {f"Bearer {HUB_TOKEN}"}
    assert sent(world.hub) == sent(world.cdn) == {None}


def test_a_mirror_whose_pages_of_files_go_on_at_the_hub(world: World) -> None:
    repository(world, "x.safetensors")
    tree = "/api/models/a/b/tree/main"
    last = world.hub.routes[tree]

    def pages(request: Request) -> None:
        if "cursor" in request.path:
            last(request)
        else:
            request.reply_json([], link=f'<{world.hub.url}{tree}?cursor=1>; rel="next"')

    world.hub.routes[tree] = pages
    world.api.fallback = lambda request: request.reply(
        308, b"", location=world.hub.url + request.path
    )
    world.use(endpoints=replace(world.settings.endpoints, hub=world.api.url))
    assert world.fetch("hf:a/b").revision == COMMIT


def test_a_mirror_with_a_file_server_that_takes_no_head(world: World) -> None:
    """Signed addresses are good for GET alone, so HEAD must not follow to them."""
    target = world.cdn.file("/signed/x.safetensors", DATA)
    file = world.cdn.routes["/signed/x.safetensors"]
    world.cdn.routes["/signed/x.safetensors"] = lambda request: (
        request.reply(403) if request.command == "HEAD" else file(request)
    )
    world.hub.routes["/a/b/resolve/main/x.safetensors"] = redirect(target)
    assert world.fetch("hf:a/b/x.safetensors").path.read_bytes() == DATA


def test_a_gated_file_behind_a_mirror_is_told(world: World) -> None:
    world.hub.fallback = refusal(401, x_error_code="GatedRepo")
    world.api.fallback = lambda request: request.reply(
        302, b"", location=world.hub.url + request.path
    )
    tokens = Tokens({origin(world.api.url): HUB_TOKEN})
    world.use(endpoints=replace(world.settings.endpoints, hub=world.api.url), tokens=tokens)
    with pytest.raises(NotAuthorisedError, match="unset HF_ENDPOINT"):
        world.fetch("hf:a/b/x.safetensors")
    assert sent(world.hub) == {None}


def test_a_hub_behind_a_mirror_that_refuses_at_the_bytes(world: World) -> None:
    repository(world, "x.safetensors")
    far = redirect(world.api.url + "/a/b/resolve/x.safetensors")
    world.hub.routes[f"/a/b/resolve/{COMMIT}/x.safetensors"] = far
    world.api.fallback = refusal(401, x_error_code="GatedRepo")
    with pytest.raises(NotAuthorisedError, match="is gated"):
        world.fetch("hf:a/b")


@pytest.mark.parametrize("status", REDIRECTS)
def test_replicate_that_moved(world: World, status: int) -> None:
    world.api.routes["/new/m/_weights"] = redirect(trained(world))
    world.replicate.routes["/me/m/_weights"] = redirect(world.api.url + "/new/m/_weights", status)
    found = world.fetch("me/m")
    assert found.revision == f"{world.cdn.url}/x/trained_model.tar"
    assert sent(world.api) == {f"Bearer {REPLICATE_TOKEN}"}


# --- a token that is not accepted ---


@pytest.mark.parametrize("text", ["hf:a/b", "hf:a/b/x.safetensors", "civitai:12345", "link"])
def test_a_refused_token_does_not_hide_a_public_file(
    world: World, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    repository(world, "x.safetensors")
    civitai(world)
    server, name = {"civitai:12345": (world.civitai, "CIVITAI_API_TOKEN")}.get(
        text, (world.hub, "HF_TOKEN")
    )
    guard(server)
    url = f"{world.hub.url}/a/b/resolve/main/x.safetensors"
    with caplog.at_level(logging.DEBUG):
        found = world.fetch(url if text == "link" else text)
    assert found.path.read_bytes() == DATA
    assert len(found.warnings) == 1
    assert f"does not accept your {name}" in found.warnings[0]
    assert "Make a new token" in found.warnings[0]
    assert [seen.headers.get("authorization") is None for seen in server.seen].count(False) == 1
    assert not any(secret in caplog.text + str(found) for secret in SECRETS)
    assert sent(world.cdn) == {None}


def test_a_refused_token_is_told_when_a_name_is_looked_up_again(world: World) -> None:
    repository(world, "x.safetensors")
    world.fetch("hf:a/b")
    guard(world.hub)
    world.clock.now += 30 * 3600
    found = world.fetch("hf:a/b")
    assert found.from_cache
    assert "HF_TOKEN" in found.warnings[0]


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "HF_TOKEN is not accepted"),
        (401, {"x_error_code": "RepoNotFound"}, "HF_TOKEN is not accepted"),
        (401, {"x_error_code": "GatedRepo"}, "HF_TOKEN is not accepted"),
        (404, {}, "HF_TOKEN is not accepted"),
        (503, {}, "busy or failing"),
    ],
)
def test_a_refused_token_where_nothing_is_public(
    world: World, status: int, headers: dict[str, str], words: str
) -> None:
    world.hub.fallback = guarded(refusal(status, b"", **headers))
    with pytest.raises(FetchError, match=words) as caught:
        world.fetch("hf:a/b/x.safetensors")
    assert HUB_TOKEN not in str(caught.value)


def test_a_refused_token_and_a_gated_file_beside_a_public_list(world: World) -> None:
    repository(world, "x.safetensors")
    guard(world.hub)
    gated = guarded(refusal(401, x_error_code="GatedRepo"))
    world.hub.routes["/a/b/resolve/main/x.safetensors"] = gated
    with pytest.raises(NotAuthorisedError, match=r"a new token \(yours is not accepted\)"):
        world.fetch("hf:a/b")


def test_a_token_that_does_not_reach_replicates_model(world: World) -> None:
    world.api.fallback = refusal(403)
    with pytest.raises(NotFoundError, match="no public weights") as caught:
        world.fetch("me/m")
    assert "REPLICATE_API_TOKEN" not in str(caught.value)


def test_a_refused_token_at_a_link(world: World) -> None:
    world.hub.fallback = refusal(401)
    with pytest.raises(NotAuthorisedError, match="Your token for this host is not accepted"):
        world.fetch(world.hub.url + "/x.safetensors")


def test_a_refused_token_of_replicate(world: World) -> None:
    world.api.fallback = guarded(refusal(401))
    with pytest.raises(NotFoundError, match="REPLICATE_API_TOKEN is not accepted"):
        world.fetch("me/m")


# --- names that are listed can be pasted back ---


@pytest.mark.parametrize("revision", ["", "@dev", "@refs%2Fpr%2F1"])
@pytest.mark.parametrize("name", ["a #1.safetensors", "my b.safetensors", "tree/50%.safetensors"])
def test_a_listed_file_of_a_repository(world: World, revision: str, name: str) -> None:
    commit = revision.removeprefix("@") or "main"
    repository(world, name, "z.safetensors")
    tree = world.hub.routes["/api/models/a/b/tree/main"]
    world.hub.routes[f"/api/models/a/b/tree/{commit}"] = tree
    with pytest.raises(NotFoundError, match="has several files") as caught:
        world.fetch(f"hf:a/b{revision}")
    quoted = name.replace("%", "%25").replace(" ", "%20").replace("#", "%23")
    route = world.hub.routes[f"/a/b/resolve/main/{name}"]
    for state in (commit, COMMIT):
        world.hub.routes[f"/a/b/resolve/{state}/{quoted}"] = route
    listed = next(line for line in str(caught.value).splitlines()[1:] if "z.s" not in line)
    assert world.fetch(listed).path.read_bytes() == DATA


def test_a_listed_file_of_a_version(world: World) -> None:
    civitai(world)
    with pytest.raises(NotFoundError, match="Choose one of its files:") as caught:
        world.fetch("civitai:12345@678?fp=fp8")
    lines = [line.split("  (")[0] for line in str(caught.value).splitlines()[1:]]
    assert lines[1:] == ["  civitai:12345@678?fileId=9", "  civitai:12345@678?fileId=10"]
    assert world.fetch(lines[1]).revision == "678/9"


@pytest.mark.parametrize("name", ["v1.beta/mine #1.safetensors", "hf:mine.safetensors", "a.io/b"])
def test_a_listed_local_file(world: World, name: str) -> None:
    name = name.replace(":", "").removesuffix(".safetensors") + ".safetensors"
    path = world.loras / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA)
    with pytest.raises(NotFoundError, match="Did you mean") as caught:
        world.fetch(f"local:{name.replace('.safetensors', 'x.safetensors')}")
    assert world.fetch(str(caught.value).splitlines()[1]).path == path


# --- pages, and what servers say ---


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/s/a/x.safetensors?rlkey=1&dl=0", "Write dl=1 in place of dl=0"),
        ("/o/r/blob/main/x.safetensors", "in place of /blob/"),
        ("/page/x.safetensors?sig=SECRET", "address of the download itself"),
        ("/page/x.tar", "address of the download itself"),
    ],
)
def test_a_page_in_place_of_a_file(world: World, path: str, words: str) -> None:
    world.cdn.fallback = PAGE
    with pytest.raises(BadFileError, match=words) as caught:
        world.fetch(world.cdn.url + path)
    assert "it is a web page" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert world.leftovers() == []


def test_a_file_that_is_called_a_page(world: World) -> None:
    url = world.cdn.file("/x.safetensors", DATA, headers={"Content-Type": "text/html"})
    assert world.fetch(url).path.read_bytes() == DATA


def test_a_file_named_in_the_query_keeps_its_name(world: World) -> None:
    world.cdn.file("/xet/1/2", DATA)
    query = "response-content-disposition=inline%3B+filename%3D%22my+lora.safetensors%22%3B&s=1"
    found = world.fetch(f"{world.cdn.url}/xet/1/2?{query}")
    assert found.name == "my lora.safetensors"
    assert found.path.name.startswith("my-lora-")


XML = '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>{}</Message></Error>'
SAYINGS = [
    ("application/xml", XML.format("Request has expired"), "Request has expired"),
    ("text/xml; charset=utf-8", XML.format("Not &quot;yours&quot;"), 'Not "yours"'),
    ("application/json", '{"error": {"message": "Signed link expired"}}', "Signed link expired"),
    ("application/problem+json", '{"detail": "Too late"}', "Too late"),
    ("text/plain", "Request has\n expired", "Request has expired"),
    ("text/plain", "<b>no</b>", None),
    ("text/html", "<html>no</html>", None),
    ("application/xml", "<Message><Message>", None),
    ("application/json", '["expired"]', None),
]


@pytest.mark.parametrize(("kind", "body", "words"), SAYINGS)
@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_what_a_server_says_is_passed_on(
    world: World, kind: str, body: str, words: str | None, status: int
) -> None:
    world.cdn.fallback = refusal(status, body.encode(), content_type=kind)
    with pytest.raises(FetchError) as caught:
        world.fetch(world.cdn.url + "/x.safetensors")
    text = str(caught.value)
    assert f"HTTP {status}: {words})" in text if words else f"HTTP {status})" in text
    expired = "expired" in (words or "") and status in (400, 403)
    assert ("copy a fresh one" in text) is expired


def test_what_a_file_server_says_is_passed_on(world: World) -> None:
    body = XML.format("Request has expired").encode()
    world.cdn.fallback = refusal(403, body, content_type="application/xml")
    world.hub.routes["/x.safetensors"] = redirect(world.cdn.url + "/signed?sig=SECRET")
    with pytest.raises(OfflineError, match="Request has expired") as caught:
        world.fetch(world.hub.url + "/x.safetensors")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("echo", ["{}", "no /x?sig={}", "{} is wrong"])
def test_a_server_that_says_the_query_back(world: World, echo: str) -> None:
    for secret in ("SECRET%2Fsig", "SECRET/sig"):
        body = echo.format(secret).encode()
        world.cdn.fallback = refusal(403, body, content_type="text/plain")
        with pytest.raises(FetchError, match="HTTP 403: ") as caught:
            world.fetch(world.cdn.url + "/x.safetensors?sig=SECRET%2Fsig&other=1")
        assert "SECRET" not in str(caught.value)


def test_a_server_that_breaks_off_what_it_says(world: World) -> None:
    def broken(request: Request) -> None:
        request.send_response(403)
        request.send_header("Content-Type", "text/plain")
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.close_connection = True

    world.cdn.fallback = broken
    with pytest.raises(NotAuthorisedError, match=r"HTTP 403\)"):
        world.fetch(world.cdn.url + "/x.safetensors")


def test_a_transfer_goes_on_without_a_token_that_ran_out_on_the_way(world: World) -> None:
    repository(world, "x.safetensors")
    file = File(DATA, cut=[5000])
    asked: list[str] = []

    def late(request: Request) -> None:
        asked.append(request.headers.get("Authorization", ""))
        (guarded(file) if len(asked) > 1 else file)(request)

    world.hub.routes[f"/a/b/resolve/{COMMIT}/x.safetensors"] = late
    found = world.fetch("hf:a/b/x.safetensors")
    assert found.path.read_bytes() == DATA
    assert [bool(token) for token in asked] == [True, True, False]
    assert len(found.warnings) == 1


def test_a_tar_that_holds_another_file_than_the_source_says(world: World) -> None:
    link = world.cdn.file("/x.tar", tar(("lora.safetensors", DATA)))
    with pytest.raises(BadFileError, match=f"its SHA-256 is {sha256(DATA)} and the source says 00"):
        world.fetch(f"{link}#sha256={'0' * 64}")
    assert world.fetch(f"{link}#sha256={sha256(DATA)}").path.read_bytes() == DATA
