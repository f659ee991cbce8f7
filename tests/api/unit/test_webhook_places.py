"""Where webhooks may go: the rules of addresses, certificates and proxies."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from api.hooks import Here, here, receiver, run

from flux_hotswap.errors import RefusedError
from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings

pytestmark = pytest.mark.usefixtures("quick_hooks")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://host.internal/",
        "https://user:password@example.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com /",
        "https://exa\nmple.com/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://",
        "ftp://example.com/",
        "file:///etc/passwd",
        "",
        "https://example.com/" + "x" * 3000,
    ],
)
def test_addresses_that_are_refused_at_once(tmp_path: Path, url: str) -> None:
    async def test(here: Here) -> None:
        with pytest.raises(RefusedError, match=r"^webhook: "):
            here.webhooks.check(url)

    run(tmp_path, test, Settings())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?token=a%20b#c",
        "https://EXAMPLE.com:8443",
        "https://b\u00fccher.example/",
        "https://\u24d4xample.com/",  # both readers make example.com of these
        "https://example\u3002com/",
        "https://xn--bcher-kva.example./x",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "http://127.0.0.1:5000/",
    ],
)
def test_addresses_that_are_taken(tmp_path: Path, url: str) -> None:
    async def test(here: Here) -> None:
        here.webhooks.check(url)

    run(tmp_path, test, Settings(allow=AllowList.parse("127.0.0.1:5000")))


def test_a_name_that_leads_inside_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looked_up: list[str] = []

    def inside(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    async def test(here: Here) -> None:
        async with receiver() as there:
            port = there.url.rpartition(":")[2].partition("/")[0]
            url = f"https://rebind.example:{port}/private?token=secret"
            here.webhooks.check(url)
            assert looked_up == [], "nothing is looked up while the client waits"
            here.finish(here.job(url))
            await here.idle()
            assert there.seen == []
        assert here.counted == [("completed", "refused")]

    with caplog.at_level(logging.INFO):
        run(tmp_path, test, Settings(resolver=inside))
    assert looked_up == ["rebind.example"]
    assert "not on the public internet" in caplog.text
    assert "secret" not in caplog.text
    assert "private" not in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A certificate of hook.test and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=hook.test", "-keyout", key, "-out", cert,
         "-addext", "subjectAltName=DNS:hook.test"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield cert, key


@pytest.mark.parametrize(
    ("name", "outcomes"), [("hook.test", ["delivered"]), ("other.test", ["failed"])]
)
def test_the_certificate_is_of_the_name_and_the_connection_to_what_was_checked(
    tmp_path: Path, certificate: tuple[Path, Path], name: str, outcomes: list[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]  # the name is in no DNS, so only what was checked can be reached

    async def test(here: Here) -> None:
        async with receiver(tls=context) as there:
            url = there.url.replace("hook.test", name)
            here.finish(here.job(url))
            while not here.counted:
                await asyncio.sleep(0.01)
        assert [outcome for _, outcome in here.counted][:1] == outcomes
        if outcomes == ["delivered"]:
            assert there.seen[0].headers["host"].startswith("hook.test:")
            assert asked == ["hook.test"]
        else:
            assert there.seen == []

    allow = AllowList.parse("hook.test other.test")
    run(tmp_path, test, Settings(allow=allow, resolver=resolver, ca_bundle=str(certificate[0])))


def test_a_proxy_is_used_where_one_is_named(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def whole() -> None:
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(proxy=f"http://127.0.0.1:{port}")
        async with server, here(tmp_path, settings) as made:
            made.finish(made.job("https://example.com/hook?token=secret"))
            while not made.counted:
                await asyncio.sleep(0.01)

    asyncio.run(whole())
    assert asked[0] == b"CONNECT example.com:443 HTTP/1.1\r\n"
