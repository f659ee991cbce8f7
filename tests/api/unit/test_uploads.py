"""Files that clients send: over a real server and in the form of each client."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData, web

from flux_hotswap.errors import CallError
from flux_hotswap.hosted_api.links import Links
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.uploads import Uploads

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
GONE = "The requested file could not be found. Send it again: files expire."
JSON = {"Content-Type": "application/json"}


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@web.middleware
async def refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except CallError as error:
        return web.json_response(
            {"detail": str(error), "status": error.status}, status=error.status
        )


@dataclass
class World:
    """A server with the routes of files, and a client."""

    session: ClientSession
    url: str
    uploads: Uploads
    store: Store
    clock: Clock
    folder: Path

    async def send(self, *parts: Any, owner: str = "me", **more: Any) -> tuple[int, Any]:
        form = FormData(quote_fields=False)
        for part in parts:
            form.add_field(*part[:2], **(part[2] if len(part) > 2 else {}))
        async with self.session.post(
            f"{self.url}/v1/files", data=form, headers={"X-Owner": owner}, **more
        ) as answer:
            return answer.status, await answer.json()

    async def ask(self, method: str, path: str, owner: str = "me") -> tuple[int, Any]:
        address = path if path.startswith("http") else self.url + path
        async with self.session.request(method, address, headers={"X-Owner": owner}) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None

    def on_disk(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []


@asynccontextmanager
async def world(tmp_path: Path, **options: Any) -> AsyncIterator[World]:
    clock = Clock()
    given = Options(state=tmp_path, **options)
    store = Store(tmp_path / "jobs.sqlite")
    where: list[str] = []
    uploads = Uploads(
        given, store, Links(b"secret", clock), lambda: where[0],
        lambda request: request.headers.get("X-Owner", ""), clock,
    )  # fmt: skip
    app = web.Application(middlewares=[refusals])
    app.router.add_post("/v1/files", uploads.create)
    app.router.add_get("/v1/files", uploads.listed)
    app.router.add_get("/v1/files/{id}", uploads.get)
    app.router.add_delete("/v1/files/{id}", uploads.delete)
    app.router.add_get("/v1/files/{id}/content", uploads.content)
    runner = web.AppRunner(app, lingering_time=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    where.append(f"http://{host}:{port}")
    try:
        async with ClientSession() as session:
            yield World(session, where[0], uploads, store, clock, tmp_path / "uploads")
    finally:
        await runner.cleanup()
        store.close()


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with world(tmp_path, **options) as made:
            await test(made)

    asyncio.run(whole())


def content(data: bytes = PNG, filename: str = "a.bin", kind: str = "text/html") -> Any:
    return ("content", io.BytesIO(data), {"filename": filename, "content_type": kind})


def test_what_a_client_sends_is_kept_and_told(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        status, told = await here.send(content(), ("metadata", '{"a": 1}'))
        assert status == 201
        md5 = hashlib.md5(PNG, usedforsecurity=False).hexdigest()
        file_id = told["id"]
        start = f"{here.url}/v1/files/{file_id}"
        link = told["urls"].pop("content")
        assert link.startswith(f"{start}/content?")
        assert told == {
            "id": file_id,
            "name": "a.bin",
            "content_type": "image/png",
            "size": len(PNG),
            "etag": md5,
            "checksums": {"sha256": hashlib.sha256(PNG).hexdigest(), "md5": md5},
            "metadata": {"a": 1},
            "created_at": "2027-01-15T08:00:00.000000Z",
            "expires_at": "2027-01-16T08:00:00.000000Z",
            "urls": {"get": start},
        }
        told["urls"]["content"] = link
        assert await here.ask("GET", start) == (200, told)
        assert await here.ask("GET", "/v1/files") == (
            200,
            {"previous": None, "next": None, "results": [told]},
        )
        assert (here.folder / file_id).read_bytes() == PNG
        assert here.on_disk() == [file_id]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("parts", "name", "metadata"),
    [
        ([content(filename="dir/a b.png")], "a b.png", {}),
        ([content(filename="C:\\x\\a.png")], "a.png", {}),
        ([("metadata", b"{}", {"filename": "blob", "content_type": JSON["Content-Type"]}),
          content(filename="blob_17")], "blob_17", {}),
        ([content(filename="upload"), ("filename", "real.png"), ("type", "image/png")],
         "real.png", {}),
        ([content(filename="x"), ("metadata", ""), ("filename", "../../\u202e\n\x1b[31m")],
         "[31m", {}),
        ([content(filename="\u00e9\u732b.png"), ("metadata", '{"\u732b": [1]}')],
         "\u00e9\u732b.png", {"\u732b": [1]}),
    ],
    ids=["python", "windows", "javascript", "beta", "rude", "letters"],
)  # fmt: skip
def test_the_forms_of_the_clients(
    tmp_path: Path, parts: list[Any], name: str, metadata: dict[str, Any]
) -> None:
    async def test(here: World) -> None:
        status, told = await here.send(*parts)
        assert (status, told["name"], told["metadata"]) == (201, name, metadata)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8L", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "application/octet-stream"),
        (b"GIF89a", "image/gif"),
        (b"BM\x10\0\0\0\0\0\0\0", "image/bmp"),
        (b"BMX is a word", "application/octet-stream"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x08\0\0\0\0\0\0\0{\"a\":1}", "application/octet-stream"),
        (b"<svg onload=alert(1)>", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)  # fmt: skip
def test_what_it_is_goes_by_its_bytes(tmp_path: Path, start: bytes, kind: str) -> None:
    async def test(here: World) -> None:
        _, told = await here.send(content(start, "\u00e9 page'.html"))
        assert told["content_type"] == kind
        async with here.session.get(told["urls"]["content"]) as answer:
            assert (answer.status, await answer.read()) == (200, start)
            headers = answer.headers
        assert headers["Content-Type"] == kind
        assert headers["X-Content-Type-Options"] == "nosniff"
        shown = headers["Content-Disposition"]
        assert shown.startswith("inline" if kind.startswith("image/") else "attachment")
        assert shown.endswith(".html")

    run(tmp_path, test)


def test_files_are_their_owners(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        _, told = await here.send(content())
        file_id, get, link = told["id"], told["urls"]["get"], told["urls"]["content"]
        for method in ("GET", "DELETE"):
            status, refused = await here.ask(method, get, owner="you")
            assert (status, refused["detail"]) == (404, GONE)
        assert (await here.ask("GET", "/v1/files", owner="you"))[1]["results"] == []
        find = here.uploads.find
        mine = here.folder / file_id
        for text in (get, link, f"/v1/files/{file_id}", f"/v1/files/{file_id}/content?x=1"):
            assert find("me", text) == mine
            assert find("you", text) is None
        for text in (f"https://else.where/v1/files/{file_id}", f"{get}/other", f"{get}\n", "",
                     f"/v1/files/{'a' * 26}", f"{here.url}/v1/files/../{file_id}"):  # fmt: skip
            assert find("me", text) is None
        assert await here.ask("DELETE", get) == (204, None)
        assert (here.on_disk(), find("me", get)) == ([], None)
        assert (await here.ask("GET", get))[0] == (await here.ask("DELETE", get))[0] == 404
        assert (await here.ask("GET", link))[0] == 404

    run(tmp_path, test)


def test_a_link_opens_its_file_alone(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        _, one = await here.send(content())
        _, two = await here.send(content())
        query = one["urls"]["content"].partition("?")[2]
        assert (await here.ask("GET", f"/v1/files/{two['id']}/content?{query}"))[0] == 404
        assert (await here.ask("GET", f"/v1/files/{one['id']}/content"))[0] == 404

    run(tmp_path, test)


def test_what_has_expired_goes(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        _, told = await here.send(content())
        here.clock.now += 60
        _, newer = await here.send(content())
        (here.folder / ("b" * 26)).write_bytes(b"killed before it was known")
        (here.folder / ("c" * 26 + ".part")).write_bytes(b"killed while it came")
        here.uploads.sweep(here.clock.now)
        assert here.on_disk() == sorted([told["id"], newer["id"]])
        here.clock.now += 24 * 3600 - 60
        for address in told["urls"].values():
            assert (await here.ask("GET", address))[0] == 404
        assert here.uploads.find("me", told["urls"]["get"]) is None
        here.uploads.sweep(here.clock.now)
        assert here.on_disk() == [newer["id"]]
        assert [file["id"] for file in (await here.ask("GET", "/v1/files"))[1]["results"]] == [
            newer["id"]
        ]

    run(tmp_path, test)


def test_a_long_list_has_pages(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        sent = [(await here.send(content(b"")))[1]["id"] for _ in range(103)]
        _, first = await here.ask("GET", "/v1/files")
        _, second = await here.ask("GET", first["next"])
        assert (len(first["results"]), second["next"]) == (100, None)
        assert [file["id"] for file in first["results"] + second["results"]] == sent[::-1]

    run(tmp_path, test)


def refused(tmp_path: Path, *parts: Any, **options: Any) -> tuple[int, str]:
    """Send what is refused, and return how; nothing of it stays."""
    told: list[tuple[int, str]] = []

    async def test(here: World) -> None:
        status, answer = await here.send(*parts)
        told.append((status, answer["detail"]))
        assert here.on_disk() == []
        assert here.store.uploads("me") == []
        assert (await here.send(content(b"small")))[0] == 201, "it goes on"

    run(tmp_path, test, **options)
    return told[0]


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    status, why = refused(tmp_path, content(bytes(1001)), upload=1000)
    assert status == 413
    assert "content: the file is larger than 1000 bytes" in why
    status, _ = refused(tmp_path / "other", content(bytes(9 * 2**20)), upload=1000)
    assert status == 413, "before it is read"


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        assert (await here.send(content(bytes(600))))[0] == 201
        status, told = await here.send(content(bytes(600)), owner="you")
        assert status == 507
        assert "content: all files together may have 1000 bytes" in told["detail"]
        assert (await here.send(content(bytes(400))))[0] == 201

    run(tmp_path, test, uploads=1000)


def test_files_that_come_at_once_are_counted_together(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        sent = await asyncio.gather(*(here.send(content(bytes(400_000))) for _ in range(6)))
        statuses = sorted(status for status, _ in sent)
        assert statuses.count(201) == sum(file.size for file in here.store.uploads("me")) / 400_000
        assert 1 <= statuses.count(201) <= 2
        assert len(here.on_disk()) == statuses.count(201)

    run(tmp_path, test, uploads=1_000_000)


@pytest.mark.parametrize(
    ("parts", "status", "why"),
    [
        ([("other", "x")], 415, "multipart"),
        ([("other", b"x", {"filename": "x"})], 422, "content: the file is missing"),
        ([content(), content()], 422, "content: send one file"),
        ([content(), ("metadata", "[1]")], 422, "metadata: send a JSON object"),
        ([content(), ("metadata", "{")], 422, "metadata: send a JSON object"),
        ([content(), ("metadata", "[" * 60_000)], 422, "metadata: send a JSON object"),
        ([content(), ("metadata", "x" * 70_000)], 413, "longer than 65536 bytes"),
        ([*[("x", "y")] * 20, content()], 422, "content: the file is missing"),
    ],
)  # fmt: skip
def test_what_is_no_such_request(tmp_path: Path, parts: list[Any], status: int, why: str) -> None:
    told, text = refused(tmp_path, *parts)
    assert told == status
    assert why in text


def test_a_body_that_is_no_multipart(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        for kind, body in (
            ("multipart/form-data; boundary=x", b"nothing of it"),
            ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
            ("multipart/form-data", b"--x--"),
            ("application/json", b"{}"),
        ):
            async with here.session.post(
                f"{here.url}/v1/files", data=body, headers={"Content-Type": kind}
            ) as answer:
                assert answer.status in (400, 415, 422), (kind, body)
                assert (await answer.json())["detail"]
        assert here.on_disk() == []

    run(tmp_path, test)


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def test(here: World) -> None:
        host, port = here.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="content"; filename="a"\r\n\r\n'
            + bytes(2_000_000)
        )
        await writer.drain()
        while not here.on_disk():
            await asyncio.sleep(0.01)
        here.uploads.sweep(here.clock.now)
        assert len(here.on_disk()) == 1, "what is coming is not swept"
        writer.close()
        for _ in range(300):
            if not here.on_disk():
                break
            await asyncio.sleep(0.01)
        assert here.on_disk() == []
        assert here.store.uploads("") == []

    run(tmp_path, test)


def test_refused_metadata_is_not_repeated(tmp_path: Path) -> None:
    secret = json.dumps(["r8_secret"])
    assert "r8_secret" not in refused(tmp_path, content(), ("metadata", secret))[1]
