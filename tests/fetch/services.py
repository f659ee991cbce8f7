"""Answers of Hugging Face, CivitAI and Replicate, for the servers of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fetch.servers import Request, Server, lora, sha256, tar
from fetch.world import World

DATA = lora(20_000)


OTHER = lora(20_000, seed=1)


COMMIT = "c" * 40


VERSION = {
    "id": 678,
    "modelId": 12345,
    "baseModel": "Flux.1 D",
    "trainedWords": ["TOK, ", "in the style of TOK", 5],
    "model": {"type": "LORA"},
    "files": [
        {"id": 1, "name": "data.zip", "type": "Training Data"},
        {
            "id": 9,
            "name": "My Style/v1.safetensors",
            "type": "Model",
            "primary": True,
            "metadata": {"format": "SafeTensor", "fp": "fp16"},
            "hashes": {"SHA256": sha256(DATA).upper()},
            "pickleScanResult": "Success",
        },
        {
            "id": 10,
            "name": "b.safetensors",
            "type": "Model",
            "metadata": {"fp": "fp32"},
            "hashes": {},
        },
    ],
}


def answer(document: Any, status: int = 200, **headers: str) -> Callable[[Request], None]:
    return lambda request: request.reply_json(document, status, **headers)


def refusal(status: int, body: bytes = b"", **headers: str) -> Callable[[Request], None]:
    return lambda request: request.reply(status, body, **headers)


def redirect(url: str, status: int = 302, **headers: str) -> Callable[[Request], None]:
    return lambda request: request.reply(status, b"", location=url, **headers)


REDIRECTS = [301, 302, 303, 307, 308]


PAGE = refusal(200, b"<!DOCTYPE html><html>login</html>", content_type="text/html; charset=utf-8")


def guarded(route: Callable[[Request], None], status: int = 401) -> Callable[[Request], None]:
    """A route that accepts no token, as the services do with one that has run out."""

    def guard(request: Request) -> None:
        if request.headers.get("Authorization"):
            said = "Invalid credentials in Authorization header"
            request.reply_json({"error": said}, status, x_error_message=said)
        else:
            route(request)

    return guard


def guard(server: Server) -> None:
    server.routes = {path: guarded(route) for path, route in server.routes.items()}


def repository(world: World, *paths: str, data: bytes = DATA, commit: str = COMMIT) -> None:
    """A repository of the hub: its tree, the head of each file, and the bytes elsewhere."""
    tree = [{"type": "file", "path": path, "size": len(data)} for path in paths]
    world.hub.routes["/api/models/a/b/tree/main"] = answer(tree)
    for path in paths:
        target = world.cdn.file(f"/{sha256(data)}", data)
        for revision in ("main", commit):
            world.hub.routes[f"/a/b/resolve/{revision}/{path}"] = redirect(
                target + "?signature=x",
                x_repo_commit=commit,
                x_linked_etag=f'"{sha256(data)}"',
                x_linked_size=str(len(data)),
            )


def sent(server: Server) -> set[str | None]:
    return {seen.headers.get("authorization") for seen in server.seen}


def civitai(world: World, version: dict[str, Any] = VERSION, **model: Any) -> None:
    """CivitAI's API and its download route, which leads to a signed address elsewhere."""
    page = {"type": "LORA", "modelVersions": [version], **model}
    world.civitai.routes["/api/v1/models/12345"] = answer(page)
    world.civitai.routes["/api/v1/model-versions/678"] = answer(version)
    target = world.cdn.file("/signed", DATA)
    world.civitai.routes["/api/download/models/678"] = redirect(target + "?sig=y", 307)


def trained(world: World, data: bytes = DATA, at: str = "/x/trained_model.tar") -> str:
    """What Replicate's trainer leaves at the delivery host."""
    config = ("output/flux_train_replicate/config.yaml", b"x: 1\n")
    weights = ("output/flux_train_replicate/lora.safetensors", data)
    return world.cdn.file(at, tar(config, weights, ("output/captions/a.txt", b"TOK")))
