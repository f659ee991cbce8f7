"""A proxy that an administrator names: everything goes through it, and nothing does without it."""

from __future__ import annotations

import base64
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import Request, Server, lora, sha256
from fetch.services import redirect
from fetch.world import World

from flux_hotswap.errors import OfflineError, RefusedError, SettingsError
from flux_hotswap.files.addresses import AllowList, origin
from flux_hotswap.files.plain import fetch_file, read_link
from flux_hotswap.files.proxy import VARIABLE, proxy_of
from flux_hotswap.files.settings import Settings
from flux_hotswap.files.tokens import Tokens

DATA = lora(60_000)
HOST = "lora.test"
"""Whose certificate the server has; the proxy alone knows where it is."""

USER, PASSWORD = "someone", "s3cr3t-pa55"


class Proxy:
    """A CONNECT proxy on a free port of 127.0.0.1 that leads every name to one server.

    Attributes:
        asked: host and port of each CONNECT.
        status: what it answers; 200 opens the tunnel.
    """

    def __init__(self, port: int, credentials: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.status = 200
        self._to = port
        self._credentials = credentials
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            self._lead(self._tls.wrap_socket(client, server_side=True) if self._tls else client)

    def _lead(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (chunk := client.recv(4096)):
            head += chunk
        self.asked.append(head.split(b" ", 2)[1].decode())
        status = self.status
        if self._credentials:
            wanted = base64.b64encode(self._credentials.encode())
            status = self.status if b"Basic " + wanted in head else 407
        if status != 200:
            client.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            client.close()
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            pairs = {client: server, server: client}
            while True:
                held = isinstance(client, ssl.SSLSocket) and client.pending()
                for ready in [client] if held else select.select(list(pairs), [], [], 10)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    pairs[ready].sendall(data)


@pytest.fixture
def proxy(secure: Server) -> Iterator[Proxy]:
    made = Proxy(secure.port)
    yield made
    made.close()


@pytest.fixture
def proxied(world: World, proxy: Proxy, certificate: tuple[Path, Path]) -> World:
    """A world whose only way out is the proxy: no name can be looked up here."""

    def nobody(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up here")

    world.use(
        proxy=f"http://{proxy.address}",
        resolver=nobody,
        allow=AllowList(),
        ca_bundle=str(certificate[0]),
        attempts=1,
    )
    return world


def never() -> bool:
    return False


def link(world: World, url: str) -> bytes:
    return read_link(url, settings=world.settings, max_bytes=10**6, seconds=30, cancelled=never)


def weights(world: World, url: str) -> bytes:
    target = world.loras.parent / "weights.safetensors"
    fetch_file(
        url,
        target,
        size=len(DATA),
        sha256=sha256(DATA),
        settings=world.settings,
        progress=lambda *_: None,
        cancelled=never,
    )
    return target.read_bytes()


WAYS: dict[str, Callable[[World, str], bytes]] = {
    "LoRA": lambda world, url: world.fetch(url).path.read_bytes(),
    "picture": link,
    "safety file": weights,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_everything_goes_through_it(
    proxied: World, proxy: Proxy, secure: Server, way: Callable[[World, str], bytes]
) -> None:
    secure.file("/a.safetensors", DATA)
    assert way(proxied, f"https://{HOST}/a.safetensors") == DATA
    assert set(proxy.asked) == {f"{HOST}:443"}
    assert secure.seen[0].headers["host"] == HOST


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_without_the_variable_nothing_does(
    proxied: World,
    proxy: Proxy,
    secure: Server,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[World, str], bytes],
) -> None:
    """Whatever else the environment says of proxies."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://{proxy.address}")
    secure.file("/a.safetensors", DATA)
    allow = AllowList.parse(f"{HOST}:{secure.port}")
    proxied.use(proxy=None, resolver=lambda *_: ["127.0.0.1"], allow=allow)
    assert way(proxied, f"https://{HOST}:{secure.port}/a.safetensors") == DATA
    assert proxy.asked == []


def test_hosts_that_are_vouched_for_are_asked_directly(
    proxied: World, proxy: Proxy, secure: Server
) -> None:
    secure.file("/a.safetensors", DATA)
    allow = AllowList.parse(f"{HOST}:{secure.port}")
    proxied.use(resolver=lambda *_: ["127.0.0.1"], allow=allow)
    assert link(proxied, f"https://{HOST}:{secure.port}/a.safetensors") == DATA
    assert proxy.asked == []


PRIVATE = [
    *("127.0.0.1", "127.1", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1", "2130706433", "169.254.43518"),
    *(
        "127\u30020\u30020\u30021",
        "\uff11\uff12\uff17.0.0.1",
        "127.0.0.1.",
        "10.0.0.1",
        "192.168.0.1",
    ),
    *("169.254.169.254", "[::1]", "[fe80::1]", "[::ffff:10.0.0.1]", "localhost", "a.localhost"),
    *("LOCALHOST.", "router", "router.lan", "printer.local", "metadata.google.internal"),
    *("nas.home.arpa", "wiki.corp", "a..example"),
]


@pytest.mark.parametrize("host", PRIVATE)
def test_what_cannot_be_public_is_refused_all_the_same(
    proxied: World, proxy: Proxy, host: str
) -> None:
    with pytest.raises(RefusedError, match="not on the public internet"):
        link(proxied, f"https://{host}/a.png")
    assert proxy.asked == []


@pytest.mark.parametrize("host", [host for host in PRIVATE if host.isascii()])
def test_nor_does_a_redirect_lead_there(
    proxied: World, proxy: Proxy, secure: Server, host: str
) -> None:
    secure.routes["/a.png"] = redirect(f"https://{host}/a.png")
    with pytest.raises(RefusedError, match="not on the public internet"):
        link(proxied, f"https://{HOST}/a.png")
    assert proxy.asked == [f"{HOST}:443"]


@pytest.mark.parametrize(
    "host", ["1.example", "8.8.8.8", "xn--bcher-kva.example", "m\xfcnchen.example"]
)
def test_what_may_be_public_is_asked_of_it(proxied: World, proxy: Proxy, host: str) -> None:
    proxy.status = 403
    shown = host.encode("idna").decode()
    with pytest.raises(OfflineError, match=f"{shown} cannot be reached through the proxy"):
        link(proxied, f"https://{host}/a.png")
    assert len(proxy.asked) == 1


@pytest.fixture
def encrypted(
    proxied: World, secure: Server, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A world whose proxy speaks https itself, so that there is encryption within encryption.

    Its certificate is lora.test's, so it is called by that name; that one name leads here.
    """
    outer = Proxy(secure.port, tls=context)
    look_up = socket.getaddrinfo
    here = {HOST: "127.0.0.1"}
    monkeypatch.setattr("socket.getaddrinfo", lambda h, *a, **k: look_up(here.get(h, h), *a, **k))
    proxied.use(proxy=f"https://{HOST}:{outer.address.rpartition(':')[2]}")
    yield proxied
    outer.close()


def test_a_proxy_that_speaks_https(encrypted: World, secure: Server) -> None:
    secure.file("/a.safetensors", DATA)
    assert link(encrypted, f"https://{HOST}/a.safetensors") == DATA


@pytest.mark.parametrize("kind", ["proxied", "encrypted"])
def test_a_head_that_drips_has_an_end(
    kind: str, request: pytest.FixtureRequest, secure: Server
) -> None:
    world: World = request.getfixturevalue(kind)
    told = threading.Event()

    def drip(asked: Request) -> None:
        while not told.wait(0.05):
            asked.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    secure.fallback = drip
    world.use(answer_seconds=0.5)
    begun = time.monotonic()
    with pytest.raises(OfflineError, match="timed out"):
        link(world, f"https://{HOST}/a.png")
    told.set()
    assert time.monotonic() - begun < 5


def test_only_https_goes_through_it(proxied: World, proxy: Proxy) -> None:
    with pytest.raises(RefusedError, match="only https is safe"):
        link(proxied, f"http://{HOST}/a.png")
    assert proxy.asked == []


def test_a_redirect_is_followed_through_it(proxied: World, proxy: Proxy, secure: Server) -> None:
    secure.file("/a.safetensors", DATA)
    secure.routes["/old"] = lambda request: request.reply(
        302, location=f"https://{HOST}:8443/a.safetensors"
    )
    assert link(proxied, f"https://{HOST}/old") == DATA
    assert proxy.asked == [f"{HOST}:443", f"{HOST}:8443"]


def test_a_token_goes_to_its_own_origin_only(proxied: World, proxy: Proxy, secure: Server) -> None:
    secure.file("/a.safetensors", DATA)
    proxied.use(tokens=Tokens({origin(f"https://{HOST}"): "hf_only-there"}))
    link(proxied, f"https://{HOST}/a.safetensors")
    link(proxied, f"https://{HOST}:8443/a.safetensors")
    sent = [seen.headers.get("authorization") for seen in secure.seen]
    assert sent == ["Bearer hf_only-there", None]


def test_the_certificate_is_still_that_of_the_host(proxied: World, secure: Server) -> None:
    secure.file("/a.png", DATA)
    with pytest.raises(RefusedError, match="certificate does not prove"):
        link(proxied, "https://other.example/a.png")
    assert not secure.seen


# --- names and passwords ---


@pytest.fixture
def guarded(secure: Server) -> Iterator[Proxy]:
    made = Proxy(secure.port, f"{USER}:{PASSWORD}")
    yield made
    made.close()


def test_a_name_and_a_password(proxied: World, guarded: Proxy, secure: Server) -> None:
    secure.file("/a.png", DATA)
    proxied.use(proxy=f"http://{USER}:{PASSWORD}@{guarded.address}")
    assert link(proxied, f"https://{HOST}/a.png") == DATA
    assert "proxy-authorization" not in secure.seen[0].headers


def test_a_wrong_password_is_not_shown(
    proxied: World, guarded: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxied.use(proxy=f"http://{USER}:{PASSWORD}x@{guarded.address}")
    with pytest.raises(OfflineError, match=rf"through the proxy of {VARIABLE}") as failed:
        link(proxied, f"https://{HOST}/a.png")
    told = f"{failed.value} {failed.value.__cause__} {caplog.text} {proxied.settings!r}"
    assert PASSWORD not in told
    assert base64.b64encode(f"{USER}:{PASSWORD}x".encode()).decode() not in told


def test_a_proxy_that_is_not_there(proxied: World, proxy: Proxy) -> None:
    proxy.close()
    with pytest.raises(
        OfflineError, match=rf"{HOST} cannot be reached through the proxy"
    ) as failed:
        link(proxied, f"https://{HOST}/a.png")
    assert VARIABLE in str(failed.value)


# --- the variable ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("  ", None),
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        (" https://u:p@proxy.example:443 ", "https://u:p@proxy.example:443"),
    ],
)
def test_the_variable(text: str, found: str | None) -> None:
    assert proxy_of({VARIABLE: text}) == found
    assert Settings.from_environment({VARIABLE: text}, login=lambda: None).proxy == found


@pytest.mark.parametrize(
    "text",
    ["proxy.example:3128", "socks5://a:1", "http://", "http://u:pa55@", "http://a:0", "http://["],
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(SettingsError, match=f"{VARIABLE} is not the address of a proxy") as wrong:
        proxy_of({VARIABLE: text})
    assert "pa55" not in str(wrong.value)


def test_by_default_there_is_none(monkeypatch: Any) -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example:3128", "HTTP_PROXY": "http://proxy.example:1"}
    assert Settings.from_environment(environ, login=lambda: None).proxy is None
