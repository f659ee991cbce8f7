"""What the pack adds to ComfyUI's server: a look at every prompt, and four HTTP routes.

Three are for the graph editor. One says what a LoRA source means, whether its file is here and,
where that is asked for, what the file is; one which LoRAs are here that a text may be the beginning
of. They read the text, the index of the store and the files: nothing goes to the network, nothing
is written, no secret and no path outside of the loras folders is told. The third counts the tokens
of a prompt.

The fourth is for the API, which takes its pictures and then lets them be removed, see `drop`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .count import count
from .drop import drop, is_prefix
from .look import ONE_AT_A_TIME, look
from .refusals import reader
from .suggest import suggest

if TYPE_CHECKING:
    from aiohttp import web
    from comfy_api.latest import io

    from ..lora_fetch.source import Source

FOLDER: Final = Path(__file__).parents[1]
"""The pack's own."""

SOURCE_ROUTE: Final = "/flux_hotswap/source"
SUGGEST_ROUTE: Final = "/flux_hotswap/suggest"
TOKENS_ROUTE: Final = "/flux_hotswap/tokens"
DROP_ROUTE: Final = "/flux_hotswap/drop"
MAX_TEXT: Final = 4096
"""Longest source that is looked at, in characters; longer ones are data: URIs."""

MAX_PROMPT: Final = 16384
"""Longest prompt that is counted, in characters."""

MAX_BODY: Final = 8 * MAX_PROMPT
"""Bytes that are read of a request: a character may take six, as `\\u00e9` does."""

log = logging.getLogger(__name__)


def register(classes: Mapping[str, type[io.ComfyNode]]) -> Path | None:
    """Add to ComfyUI's server, once; where no server runs there is nothing to do.

    Args:
        classes: our nodes by their id.

    Returns:
        The folder of another copy of the pack that was here first, and keeps the server.
    """
    # Looked up, not imported: ComfyUI has loaded it before any pack, and who only wants the list of
    # nodes needs no server.
    module = sys.modules.get("server")
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is None:
        return None
    for route in server.routes:
        if getattr(route, "path", None) == SOURCE_ROUTE:
            first = Path(inspect.getfile(route.handler)).parents[1]
            return None if first == FOLDER else first
    server.routes.post(SOURCE_ROUTE)(answer_source)
    server.routes.post(SUGGEST_ROUTE)(answer_suggest)
    server.routes.post(TOKENS_ROUTE)(answer_tokens)
    server.routes.post(DROP_ROUTE)(answer_drop)
    server.add_on_prompt_handler(reader(classes))
    return None


async def answer_source(request: web.Request) -> web.Response:
    """Answer `{"source": text}` as `about` tells it, with `"inside": true` as `about_inside`."""
    asked = await _asked(request)
    if not isinstance(asked, dict):
        return asked
    text, inside = asked.get("source"), asked.get("inside", False)
    if not isinstance(text, str) or len(text) > MAX_TEXT or not isinstance(inside, bool):
        form = '{"source": text, "inside": true or false}'
        return _refused(400, f"send {form} of at most {MAX_TEXT} characters")
    if inside:
        return await _answered(about_inside, text)
    return _json(await asyncio.to_thread(about, text))


async def answer_suggest(request: web.Request) -> web.Response:
    """Answer `{"text": text}` as `suggest` tells it."""
    return await _answered_text(request, "text", MAX_TEXT, suggest)


async def answer_tokens(request: web.Request) -> web.Response:
    """Answer `{"prompt": text}` as `count` tells it."""
    return await _answered_text(request, "prompt", MAX_PROMPT, count)


async def _answered_text(
    request: web.Request, name: str, longest: int, work: Callable[[str], Any]
) -> web.Response:
    """Answer a request that holds one text of at most so many characters."""
    asked = await _asked(request)
    if not isinstance(asked, dict):
        return asked
    text = asked.get(name)
    if not isinstance(text, str) or len(text) > longest:
        return _refused(400, f'send {{"{name}": text}} of at most {longest} characters')
    return await _answered(work, text)


async def answer_drop(request: web.Request) -> web.Response:
    """Answer `{"prefix": text}` with how many files of the API were removed."""
    asked = await _asked(request)
    if not isinstance(asked, dict):
        return asked
    prefix = asked.get("prefix")
    if not is_prefix(prefix):
        return _refused(400, 'send {"prefix": the mark of an API, and what follows it}')
    return _json({"removed": await asyncio.to_thread(drop, prefix)})


async def _asked(request: web.Request) -> dict[str, Any] | web.Response:
    """Return what a request holds, or why it is refused."""
    if is_cross_site(request.headers.get("Sec-Fetch-Site", "")):
        return _refused(403, "cross-site requests are refused")
    if request.content_type != "application/json":  # what a form of another site cannot send
        return _refused(415, "send application/json")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        return _refused(400, "send JSON in UTF-8")
    try:
        body = json.loads(await _read(request))
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {}


async def _answered(work: Callable[[str], Any], text: str) -> web.Response:
    loop = asyncio.get_running_loop()
    return _json(await loop.run_in_executor(ONE_AT_A_TIME, work, text))


def _refused(status: int, why: str) -> web.Response:
    return _json({"error": why}, status)


def _json(told: Any, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.json_response(told, status=status)


async def _read(request: web.Request) -> bytes:
    """Return a body; nothing, which is no JSON, of one that is too long."""
    raw = b""
    while len(raw) <= MAX_BODY and (piece := await request.content.read(MAX_BODY)):
        raw += piece
    return raw if len(raw) <= MAX_BODY else b""


def is_cross_site(fetch_site: str) -> bool:
    """Whether ComfyUI refuses a request that a browser marks so; 0.3.75 does not do it itself."""
    from comfy.cli_args import args

    return fetch_site == "cross-site" and not args.enable_cors_header


def about(text: str) -> dict[str, Any]:
    """Return what a LoRA source means.

    Returns:
        `{"error": why}`, or the kind of source, its name without secrets, and its file below the
        loras folder with the size in bytes, both None where it is not here.
    """
    return _about(text)[0]


def about_inside(text: str) -> dict[str, Any]:
    """Return the same, and as `inside` what `look` tells of the file; None where it is not here."""
    told, found = _about(text)
    if found is None:
        return {**told, "inside": None}
    inside = look(found.path)
    if inside is not None and found.words:
        inside = {**inside, "words": found.words}
    return {**told, "inside": inside}


class _Found(NamedTuple):
    """A file that is here: where, how it is called below the loras folder, what its source says."""

    path: Path
    file: str
    size: int
    words: list[str]


def _about(text: str) -> tuple[dict[str, Any], _Found | None]:
    from ..errors import FetchError
    from ..lora_fetch.parser import parse

    try:
        source = parse(text)
    except FetchError as error:
        return {"error": str(error)}, None
    try:
        found = _find(source)
    except (FetchError, OSError) as error:
        log.warning("The store of LoRAs cannot be read: %s", error)
        found = None
    told = {
        "kind": source.kind,
        "name": source.shown().removeprefix(source.prefix),
        "file": found and found.file,
        "size": found and found.size,
    }
    return told, found


def _find(source: Source) -> _Found | None:
    """Return the file of a source, without reading it; None where it is not here."""
    import folder_paths

    from ..engine.fetching import open_store
    from ..lora_fetch import store as stores
    from ..lora_fetch.services.local import LocalFile

    if isinstance(source, LocalFile):
        there = folder_paths.get_full_path("loras", source.name)
        if there is None:
            return None
        path = Path(there)
        return _Found(path, source.name, path.stat().st_size, [])
    store = open_store()
    entry = store.entries().get(stores.key_of(source))
    if entry is None or not store.path(entry).is_file():
        return None
    path = store.path(entry)
    return _Found(path, f"{stores.FOLDER}/{entry.file}", entry.size, entry.trigger_words)
