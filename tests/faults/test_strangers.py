"""What strangers send to a fetch: nothing is held, nothing is filled, everything is said."""

from __future__ import annotations

import gzip
import json
import resource
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import Request, lora, tar
from fetch.services import repository
from fetch.world import World, entry_of, files, index

from flux_hotswap.errors import BadFileError, FetchError, NoRoomError, RefusedError
from flux_hotswap.files.plain import read_link
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.store import key_of

DATA = lora(300_000)
MANY = 100 * 2**20


def bomb(times: int) -> bytes:
    """Zeros of 100 MB, packed so often."""
    packed = bytes(MANY)
    for _ in range(times):
        packed = gzip.compress(packed, 9)
    return packed


# --- encoded bodies ---

CODINGS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(DATA)),
    "once": ("gzip", lambda: bomb(1)),
    "twice": ("gzip, gzip", lambda: bomb(2)),
    "many times": (", ".join(["gzip"] * 50), lambda: bomb(3)),
    "in capitals": ("GZIP", lambda: bomb(1)),
    "deflate": ("deflate", lambda: zlib.compress(bytes(MANY))),
    "brotli": ("br", lambda: DATA),
    "zstd": ("zstd", lambda: DATA),
    "unknown": ("x-own", lambda: DATA),
    "after a plain one": ("identity, gzip", lambda: bomb(1)),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("coding", "make"), CODINGS.values(), ids=CODINGS)
def test_an_encoded_body_is_refused(
    world: World, coding: str, make: Callable[[], bytes], chunked: bool
) -> None:
    body = make()
    world.cdn.routes["/a.safetensors"] = serve(body, chunked=chunked, Content_Encoding=coding)
    url = world.cdn.url + "/a.safetensors"
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for get in (world.fetch, lambda link: picture(world, link)):
        with pytest.raises(RefusedError, match="sends the file compressed"):
            get(url)
    assert time.process_time() - began < 6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert len(world.cdn.seen) == 2, "asking again does not help"
    assert world.leftovers() == []


@pytest.mark.parametrize("coding", ["", "identity", "Identity", "aws-chunked", "aws-chunked,"])
def test_a_coding_that_changes_nothing(world: World, coding: str) -> None:
    url = world.cdn.file("/a.safetensors", DATA, headers={"Content-Encoding": coding})
    assert world.fetch(url).path.read_bytes() == DATA


def test_an_encoded_answer_of_a_service(world: World) -> None:
    world.civitai.fallback = serve(bomb(2), Content_Encoding="gzip, gzip")
    with pytest.raises(RefusedError, match="compressed"):
        world.fetch("civitai:5")


def test_an_encoded_refusal_is_told_by_its_status(world: World) -> None:
    url = world.cdn.url + "/a.safetensors"
    world.cdn.routes["/a.safetensors"] = serve(
        bomb(2), 403, Content_Encoding="gzip, gzip", Content_Type="application/json"
    )
    with pytest.raises(FetchError, match=r"refuses \(HTTP 403\)"):
        world.fetch(url)


# --- refusals ---

REFUSALS: dict[str, tuple[str, str]] = {
    "blanks": ("xml", "<Message>" + " " * 4000 + "<x"),
    "lines": ("xml", "<Details>" + "\r\n" * 2000 + "</Message>"),
    "blanks and words": ("xml", "<Message>" + " a" * 2000 + "</Details>"),
    "begun often": ("xml", "<Message>" * 450),
    "ended often": ("xml", "<Message>" + "</Message" * 450),
    "half a sign": ("xml", "<Message>" + "&#" * 2000 + "</Message>"),
    "a long sign": ("xml", "<Message>&#" + "9" * 4050 + ";</Message>"),
    "deep": ("json", '{"a":' * 800),
    "quotes": ("json", '{"message": "' + '\\"' * 2000),
    "plain": ("plain", "\t \n" * 1300),
}


@pytest.mark.parametrize(("kind", "body"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_costs_no_time(world: World, kind: str, body: str) -> None:
    """The start of one once took a minute, in which nothing else in the process went on."""
    content_type = "text/plain" if kind == "plain" else f"application/{kind}"
    route = serve(body.encode(), 403, Content_Type=content_type)
    world.cdn.routes["/a.safetensors"] = route
    began = time.process_time()
    with pytest.raises(FetchError, match=r"refuses \(HTTP 403"):
        world.fetch(world.cdn.url + "/a.safetensors")
    assert time.process_time() - began < 4


def test_a_refusal_is_told_on_one_line(world: World) -> None:
    body = b"<Error><Message>\n  Has\n\texpired. </Message><Details>\n Ask &amp; pay\n</Details>"
    world.cdn.routes["/a.safetensors"] = serve(body, 403, Content_Type="application/xml")
    with pytest.raises(FetchError, match=r"403: Has expired\. Ask & pay\)"):
        world.fetch(world.cdn.url + "/a.safetensors")


# --- bodies without a length ---


def test_the_reserve_is_kept_as_it_comes(world: World) -> None:
    """What is free is what the disk had, less what has arrived."""
    work, had, reserve = world.loras / "flux-hotswap" / ".work", 3 * 2**20, 2**20
    lowest = [had]

    def free(_: Path) -> int:
        left = had - sum(path.stat().st_size for path in work.glob("*.part"))
        lowest.append(left)
        return left

    world.use(free_space=free, reserve_bytes=reserve)
    body = lora(8 * 2**20)
    world.cdn.routes["/a.safetensors"] = serve(body, chunked=True)
    with pytest.raises(NoRoomError, match="must stay free"):
        world.fetch(world.cdn.url + "/a.safetensors")
    assert reserve <= min(lowest) < had, "some of it came, and the reserve was kept"
    assert world.leftovers() == []
    world.cdn.routes["/b.safetensors"] = serve(lora(2**20), chunked=True)
    assert world.fetch(world.cdn.url + "/b.safetensors").size > 2**20, "what fits is taken"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_limit_of_the_cache_is_kept_as_it_comes(world: World, chunked: bool) -> None:
    world.use(cache_bytes=2**20, keep_recent=0)
    for name in "abc":
        world.fetch(world.cdn.file(f"/{name}.safetensors", lora(300_000, seed=ord(name))))
        world.clock.now += 10
    world.cdn.routes["/d.safetensors"] = serve(lora(600_000), chunked=chunked)
    new = world.fetch(world.cdn.url + "/d.safetensors")
    assert len(files(world)) == 2, "the two oldest went"
    assert new.path.name in files(world)
    assert sum(path.stat().st_size for path in world.loras.rglob("*.safetensors")) <= 2**20


def test_the_rest_of_a_broken_transfer_keeps_the_limit_of_the_cache(world: World) -> None:
    world.use(cache_bytes=700_000, keep_recent=0)
    world.fetch(world.cdn.file("/a.safetensors", lora(300_000, seed=1)))
    world.clock.now += 10
    url = world.cdn.file("/b.safetensors", lora(600_000), cut=[500_000])
    new = world.fetch(url)
    assert files(world) == {new.path.name}


def test_more_than_the_source_says_is_not_taken(world: World) -> None:
    repository(world, "x.safetensors")
    for path in list(world.cdn.routes):
        world.cdn.routes[path] = serve(lora(8 * 2**20), chunked=True)
    with pytest.raises(BadFileError, match="sends more than the"):
        world.fetch("hf:a/b")
    assert world.leftovers() == []


def test_a_tar_without_a_length(world: World) -> None:
    world.use(free_space=lambda _: 2**20, reserve_bytes=2**20)
    world.cdn.routes["/a.tar"] = serve(tar(("lora.safetensors", DATA)), chunked=True)
    with pytest.raises(NoRoomError, match="must stay free"):
        world.fetch(world.cdn.url + "/a.tar")


# --- trigger words and names ---

LONG = "\x1b]0;owned\x07\x1b[2Ja\r\nb\u202ec " * 700_000


@pytest.mark.parametrize(
    "words", [[LONG], [LONG[:400]] * 3000, ["a"] * 10**5, [LONG[:40], 5, None]]
)
def test_trigger_words_are_printable_and_few(world: World, words: list[Any], caplog: Any) -> None:
    caplog.set_level("DEBUG")
    version = {
        "id": 6,
        "modelId": 5,
        "baseModel": "Flux.1 D",
        "trainedWords": words,
        "files": [{"id": 7, "name": f"{LONG[:60]}.safetensors", "type": "Model"}],
    }
    world.civitai.routes["/api/v1/model-versions/6"] = lambda r: r.reply_json(version)
    world.civitai.file("/api/download/models/6", DATA)
    readable(world, "civitai:5@6")
    assert all(line.isprintable() for line in caplog.text.splitlines())
    assert len(caplog.text) < 10_000


def test_trigger_words_of_a_file_are_printable_and_few(world: World) -> None:
    metadata = {"modelspec.trigger_phrase": LONG[: 2**22]}
    readable(world, world.cdn.file("/a.safetensors", lora(metadata=metadata)))
    (world.loras / "mine.safetensors").write_bytes(lora(metadata=metadata))
    readable(world, "mine.safetensors")


def readable(world: World, source: str) -> None:
    found = world.fetch(source)
    assert found.trigger_words
    for text in (*found.trigger_words, found.name, found.source, *found.warnings):
        assert text.isprintable()
        assert len(text) <= 500
    assert sum(map(len, found.trigger_words)) <= 4000
    assert index(world).stat().st_size < 20_000


def test_no_message_is_long_or_obeyed_by_a_terminal(world: World) -> None:
    files_of_it = [{"id": n, "name": LONG[:4000]} for n in range(100)]
    version = {"id": 6, "modelId": 5, "files": files_of_it}
    world.civitai.routes["/api/v1/model-versions/6"] = lambda r: r.reply_json(version)
    with pytest.raises(FetchError) as caught:
        world.fetch("civitai:5@6")
    first, *listed = str(caught.value).split("\n")  # the only sign that is not printable
    assert all(line.isprintable() for line in (first, *listed))
    assert listed[-1] == f"  and {101 - len(listed)} more"
    assert len(str(caught.value)) <= 4100


# --- notes ---

NOTES: dict[str, Any] = {
    "no json": b"{",
    "no utf-8": b"\xff\xfe{",
    "empty": b"",
    "deep": b"[" * 100_000,
    "huge": b'{"validator": "' + b"a" * 10**6 + b'"}',
    "list": ["a"],
    "text": "a",
    "a later release": {"more": 1},
    "validator: number": {"validator": 5},
    "validator: list": {"validator": ["a"]},
    "validator: two lines": {"validator": '"a"\r\nX-Evil: 1'},
    "validator: no latin": {"validator": '"\u732b"'},
    "validator: half a sign": {"validator": "\ud800"},
    "validator: long": {"validator": "a" * 5000},
    "validator: empty": {"validator": ""},
    "have: infinity": b'{"validator": "\\"one\\"", "have": Infinity}',
    "have: nan": b'{"validator": "\\"one\\"", "have": NaN}',
    "have: text": {"validator": '"one"', "have": "5"},
    "have: negative": {"validator": '"one"', "have": -5},
    "have: true": {"validator": '"one"', "have": True},
    "total: text": {"validator": '"one"', "total": "5"},
    "total: list": {"validator": '"one"', "total": [5]},
    "total: huge": {"validator": '"one"', "total": 10**400},
    "revision: number": {"revision": 5, "validator": '"one"'},
    "sha256: list": {"sha256": ["a"], "validator": '"one"'},
    "member: text": {"validator": '"one"', "member": "abc"},
    "member: numbers": {"validator": '"one"', "member": [1, 2, 3]},
    "member: negative": {"validator": '"one"', "member": ["a", -1, 5]},
    "member: too small": {"validator": '"one"', "member": ["a", 512, 5]},
}


@pytest.mark.parametrize("packed", [False, True], ids=["file", "tar"])
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_damaged_note_is_forgotten(world: World, note: Any, packed: bool) -> None:
    body = tar(("lora.safetensors", DATA)) if packed else DATA
    url = world.cdn.file("/a.tar" if packed else "/a.safetensors", body)
    part, path = beside(world, url)
    part.write_bytes(DATA[:1000])
    path.write_bytes(note if isinstance(note, bytes) else json.dumps(note).encode())
    assert world.fetch(url).path.read_bytes() == DATA
    (seen,) = world.cdn.seen
    assert seen.headers["range"] == "bytes=0-", "begun anew, at once"
    assert "if-range" not in seen.headers
    assert world.leftovers() == []


@pytest.mark.parametrize("holds", [False, True], ids=["empty", "with a file"])
@pytest.mark.parametrize("ending", [".json", ".part", ".new"])
def test_a_folder_in_its_place(world: World, ending: str, holds: bool) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    part, path = beside(world, url)
    part.write_bytes(DATA[:1000])
    path.write_text(json.dumps({"validator": '"one"'}))
    place = part.with_suffix(ending)
    place.unlink(missing_ok=True)
    place.mkdir()
    if holds:
        (place / "a").write_text("x")
    if ending == ".new":
        path.write_text("{")
    assert world.fetch(url).path.read_bytes() == DATA
    assert world.leftovers() == []


def test_a_sound_note_is_used(world: World) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    part, path = beside(world, url)
    part.write_bytes(DATA[:1000])
    path.write_text(json.dumps({"validator": '"one"', "total": len(DATA)}))
    assert world.fetch(url).path.read_bytes() == DATA
    assert world.cdn.seen[0].headers["range"] == "bytes=1000-"


@pytest.mark.parametrize("etag", ['"' + "a" * 5000 + '"', '"\xe9"'], ids=ascii)
def test_a_state_that_no_request_can_carry(world: World, etag: str) -> None:
    url = world.cdn.file("/a.safetensors", DATA, etags=[etag], cut=[1000])
    assert world.fetch(url).path.read_bytes() == DATA
    assert "if-range" not in world.cdn.seen[1].headers
    assert entry_of(world).revision is None


@pytest.mark.parametrize("claim", ["9" * 5000, "-5", "five", "\xb2"], ids=lambda c: c[:5])
def test_an_odd_length(world: World, claim: str) -> None:
    """In words, whatever it is."""

    def route(request: Request) -> None:
        request.close_connection = True
        request.reply(200, DATA, content_length=claim)

    world.cdn.routes["/a.safetensors"] = route
    world.use(attempts=1)
    try:
        assert world.fetch(world.cdn.url + "/a.safetensors").path.read_bytes() == DATA
    except FetchError as error:
        assert "127.0.0.1" in str(error)


# --- parts ---


def serve(
    body: bytes, status: int = 200, *, chunked: bool = False, **headers: str
) -> Callable[[Request], None]:
    """A route that sends a body, with its length or in chunks."""

    def route(request: Request) -> None:
        if not chunked:
            request.reply(status, body, **headers)
            return
        request.send_response(status)
        for name, value in {**headers, "Transfer_Encoding": "chunked"}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        for at in range(0, len(body), 2**16):
            piece = body[at : at + 2**16]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    return route


def picture(world: World, url: str) -> bytes:
    return read_link(
        url, settings=world.settings, max_bytes=2**20, seconds=60, cancelled=lambda: False
    )


def beside(world: World, url: str) -> tuple[Path, Path]:
    """Where the part of a source and its note are, in a folder that is there."""
    work = world.loras / "flux-hotswap" / ".work"
    work.mkdir(parents=True)
    part = work / f"{key_of(parse(url))}-{world.settings.apart}.part"
    return part, part.with_suffix(".json")
