"""Where a fetch must not go, what it must not carry there, and what it must not take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fetch.servers import Request, Server, lora, sha256
from fetch.world import SECRETS, World

from flux_hotswap.errors import OfflineError, RefusedError, SettingsError
from flux_hotswap.files.addresses import AllowList, check, is_public, origin, system_resolver
from flux_hotswap.files.net import Client
from flux_hotswap.files.tokens import Tokens

DATA = lora(20_000)

ADDRESSES = [
    ("8.8.8.8", True),
    ("172.15.255.255", True),
    ("172.32.0.1", True),
    ("100.63.255.255", True),
    ("0.0.0.0", False),  # noqa: S104, refused is the point
    ("10.1.2.3", False),
    ("100.64.0.1", False),
    ("100.100.100.200", False),
    ("127.0.0.1", False),
    ("127.9.9.9", False),
    ("168.63.129.16", False),
    ("169.254.169.254", False),
    ("172.16.0.1", False),
    ("192.0.0.192", False),
    ("192.168.1.1", False),
    ("198.18.0.1", False),
    ("203.0.113.5", False),
    ("224.0.0.1", False),
    ("255.255.255.255", False),
    ("2606:4700::1111", True),
    ("::", False),
    ("::1", False),
    ("::127.0.0.1", False),
    ("::ffff:127.0.0.1", False),
    ("::ffff:8.8.8.8", True),
    ("64:ff9b::7f00:1", False),
    ("64:ff9b::808:808", True),
    ("64:ff9b:1::808:808", False),
    ("2001:0:4136:e378::1", False),
    ("2001:db8::1", False),
    ("2002:7f00:1::", False),
    ("fc00::1", False),
    ("fd00:ec2::254", False),
    ("fe80::1", False),
    ("fe80::1%eth0", False),
    ("fec0::1", False),
    ("ff02::1", False),
    ("not an address", False),
]


@pytest.mark.parametrize(("address", "public"), ADDRESSES)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def one(address: str) -> Callable[[str, int], list[str]]:
    return lambda *_: [address]


@pytest.mark.parametrize(
    ("url", "answers", "words"),
    [
        ("https://evil.example/a", ["10.0.0.1"], "not on the public internet"),
        ("https://evil.example/a", ["8.8.8.8", "127.0.0.1"], "not on the public internet"),
        ("https://169.254.169.254/a", ["169.254.169.254"], "not on the public internet"),
        ("http://h.io/a", ["8.8.8.8"], "only https"),
        ("ftp://h.io/a", ["8.8.8.8"], "no web address"),
        ("https://[::1/a", [], "no web address"),
        ("https:///a", [], "no web address"),
        ("https://h.io:0/a", [], "no web address"),
        ("https://good.example:444/a", ["10.0.0.1"], "not on the public internet"),
    ],
)
def test_refused_targets(url: str, answers: list[str], words: str) -> None:
    allow = AllowList.parse("good.example:443, other.example")
    with pytest.raises(RefusedError, match=words):
        check(url, allow=allow, resolver=lambda *_: answers)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://h.io/a", "h.io"),
        ("https://H.io.:444/a", "h.io:444"),
        ("http://good.example:443/a", "good.example:443"),
        ("http://[::1]:81/a", "[::1]:81"),
    ],
)
def test_allowed_targets(url: str, authority: str) -> None:
    allow = AllowList.parse("Good.Example:443;[::1]")
    target = check(url, allow=allow, resolver=lambda *_: ["8.8.8.8"])
    assert target.authority == authority


def test_allow_list_is_read_strictly() -> None:
    with pytest.raises(SettingsError, match="FLUX_HOTSWAP_ALLOW_HOSTS"):
        AllowList.parse("http://h.io/x")


def test_names_without_an_address() -> None:
    with pytest.raises(OfflineError, match="has no address"):
        check("https://h.io/", allow=AllowList(), resolver=lambda *_: [])
    with pytest.raises(OfflineError, match="cannot be found") as caught:
        check(f"https://{'a' * 70}.io/", allow=AllowList(), resolver=system_resolver)
    assert not caught.value.transient
    assert system_resolver("127.0.0.1", 80) == ["127.0.0.1"]


def test_origin_has_one_spelling() -> None:
    assert origin("https://H.io/x") == origin("https://h.io:443") == "https://h.io:443"
    assert origin("http://[::1]/") == "http://[::1]:80"


def to(url: str) -> Callable[[Request], None]:
    return lambda request: request.reply(302, b"", location=url)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://private.test/a", "only https"),
        ("https://private.test/a", "not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "not on the public internet"),
        ("file:///etc/passwd", "no web address"),
        ("https://[::1/", "no web address"),
    ],
)
def test_redirect_to_where_we_must_not_go(world: World, location: str, words: str) -> None:
    world.use(resolver=lambda host, _: ["127.0.0.1" if host == "127.0.0.1" else "10.0.0.7"])
    world.cdn.routes["/a.safetensors"] = to(location)
    with pytest.raises(RefusedError, match=words):
        world.fetch(world.cdn.url + "/a.safetensors")


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/grüße/猫.safetensors".encode(), "/gr%C3%BC%C3%9Fe/%E7%8C%AB.safetensors"),
        ("/grüße.safetensors".encode("latin-1"), "/gr%C3%BC%C3%9Fe.safetensors"),
        (b"/gr%C3%BC%C3%9Fe.safetensors", "/gr%C3%BC%C3%9Fe.safetensors"),
        (b"/plain%20name.safetensors", "/plain%20name.safetensors"),
    ],
    ids=["utf-8", "latin-1", "escaped", "ascii"],
)
@pytest.mark.parametrize("through", ["link", "replicate"])
def test_redirect_in_any_spelling(world: World, location: bytes, path: str, through: str) -> None:
    def route(request: Request) -> None:
        request.reply(302, b"", location=(world.cdn.url.encode() + location).decode("latin-1"))

    world.cdn.file(path, DATA)
    world.cdn.routes["/a.safetensors"] = world.replicate.routes["/a/b/_weights"] = route
    text = "a/b" if through == "replicate" else world.cdn.url + "/a.safetensors"
    assert world.fetch(text).sha256 == sha256(DATA)


@pytest.mark.parametrize(
    "host", ["猫.test", "grüße.test", "１２７.0.0.1", "\u2024.test", "a" * 70 + "ü"]
)
def test_redirect_to_a_host_in_any_script(world: World, host: str) -> None:
    """In words, and to none that we must not ask."""
    asked: list[str] = []

    def resolver(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if host == "127.0.0.1" else "10.0.0.7"]

    world.use(resolver=resolver)
    location = f"https://{host}/a.safetensors".encode().decode("latin-1")
    world.cdn.routes["/a.safetensors"] = to(location)
    with pytest.raises((RefusedError, OfflineError)):
        world.fetch(world.cdn.url + "/a.safetensors")
    assert all(name.isascii() for name in asked)


def test_a_host_in_any_script_is_asked_by_its_ascii_name(world: World) -> None:
    port = world.cdn.port
    world.use(allow=AllowList.parse("127.0.0.1 xn--z7x.test"), resolver=one("127.0.0.1"))
    world.cdn.file("/b.safetensors", DATA)
    location = f"http://猫.test:{port}/b.safetensors".encode().decode("latin-1")
    world.cdn.routes["/a.safetensors"] = to(location)
    assert world.fetch(world.cdn.url + "/a.safetensors").sha256 == sha256(DATA)
    assert world.cdn.seen[-1].headers["host"] == f"xn--z7x.test:{port}"


def test_redirect_loop(world: World) -> None:
    world.cdn.routes["/a.safetensors"] = to("/a.safetensors")
    with pytest.raises(RefusedError, match="more than 10 times"):
        world.fetch(world.cdn.url + "/a.safetensors")
    assert len(world.cdn.seen) == 10


def test_every_hop_is_resolved_again(world: World) -> None:
    """A name that is public at first and private later (rebinding) does not get through."""
    answers = iter([["127.0.0.1"], ["10.0.0.7"]])
    world.use(allow=AllowList.parse("127.0.0.1"), resolver=lambda *_: next(answers))
    world.cdn.routes["/a.safetensors"] = to("https://rebind.test/a.safetensors")
    with pytest.raises(RefusedError, match=r"10\.0\.0\.7"):
        world.fetch(world.cdn.url + "/a.safetensors")


def test_token_trap(world: World, server: Callable[..., Server], caplog: Any) -> None:
    """A second origin, reached by redirects from each service, never sees a token or a cookie."""
    caplog.set_level(logging.DEBUG)
    trap = server()
    trap.file("/x.safetensors", DATA)
    target = trap.url + "/x.safetensors?sig=SIGNATURE"

    def carry(request: Request) -> None:
        cookie = {"set_cookie": "session=1; Path=/"}
        request.reply(307, b"", location=target, etag=f'"{sha256(DATA)}"', **cookie)

    world.hub.fallback = world.civitai.fallback = world.replicate.fallback = carry
    world.civitai.routes["/api/v1/model-versions/5"] = lambda request: request.reply_json(
        {"id": 5, "files": [{"id": 1, "name": "x.safetensors", "hashes": {}}]}
    )
    for text in ("hf:a/b/x.safetensors", "civitai:@5", "a/b", target):
        world.fetch(text)
    assert len(trap.seen) >= 4
    for seen in trap.seen:
        assert not {"authorization", "cookie", "referer"} & set(seen.headers)
        assert not any(secret in str(seen) for secret in SECRETS)
    logged = caplog.text
    assert "urllib3" in logged
    assert not any(secret in logged for secret in (*SECRETS, "SIGNATURE"))
    index = (world.loras / "flux-hotswap" / "index.json").read_text()
    assert not any(secret in index for secret in (*SECRETS, "SIGNATURE"))


def test_tokens_and_settings_do_not_show_themselves(world: World) -> None:
    text = f"{world.settings!r} {world.settings.tokens!r} {Tokens({'https://h:1': 'x9y'})}"
    assert not any(secret in text for secret in (*SECRETS, "x9y"))


def test_connection_errors_hold_no_query(world: World) -> None:
    gone = Server()
    gone.close()
    with pytest.raises(OfflineError, match="refused") as caught:
        world.fetch(gone.url + "/a.safetensors?sig=SIGNATURE")
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "SIGNATURE" not in str(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_next_address_is_tried(world: World, addresses: list[str]) -> None:
    url = world.cdn.file("/a.safetensors", DATA)
    world.use(resolver=lambda *_: addresses)
    assert world.fetch(url).sha256 == sha256(DATA)


def test_the_log_of_others_is_left_alone(world: World, caplog: Any) -> None:
    with Client(world.settings):
        caplog.set_level(logging.DEBUG)
        logging.getLogger("urllib3.connectionpool").debug("%s", "/x?of=others")
    assert "/x?of=others" in caplog.text


def test_tls_to_the_pinned_address_with_the_names_certificate(
    world: World, secure: Server, certificate: tuple[Path, Path]
) -> None:
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    secure.file("/a.safetensors", DATA)
    allow = AllowList.parse(f"lora.test:{secure.port}")
    world.use(allow=allow, resolver=resolver, ca_bundle=str(certificate[0]))
    found = world.fetch(f"https://lora.test:{secure.port}/a.safetensors")
    assert found.sha256 == sha256(DATA)
    assert set(asked) == {"lora.test"}
    assert secure.seen[0].headers["host"] == f"lora.test:{secure.port}"


def test_a_head_that_drips_has_an_end_over_tls_too(
    world: World, secure: Server, certificate: tuple[Path, Path]
) -> None:
    def drip(request: Request) -> None:
        for _ in range(100):
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.05)

    secure.fallback = drip
    world.use(resolver=one("127.0.0.1"), ca_bundle=str(certificate[0]))
    world.use(allow=AllowList.parse("lora.test"), answer_seconds=0.5, attempts=1)
    begun = time.monotonic()
    with pytest.raises(OfflineError, match="timed out"):
        world.fetch(f"https://lora.test:{secure.port}/a.safetensors")
    assert time.monotonic() - begun < 3


def test_tls_with_the_certificate_of_another_name(
    world: World, secure: Server, certificate: tuple[Path, Path]
) -> None:
    allow = AllowList.parse("other.test")
    world.use(allow=allow, resolver=one("127.0.0.1"), ca_bundle=str(certificate[0]))
    with pytest.raises(RefusedError, match="certificate does not prove"):
        world.fetch(f"https://other.test:{secure.port}/a.safetensors")
    assert not secure.seen


def test_tls_with_an_unknown_authority(world: World, secure: Server) -> None:
    world.use(allow=AllowList.parse("lora.test"), resolver=one("127.0.0.1"))
    with pytest.raises(RefusedError, match="certificate does not prove"):
        world.fetch(f"https://lora.test:{secure.port}/a.safetensors")
    assert not secure.seen


def test_plain_http_where_tls_is_expected(world: World) -> None:
    world.use(attempts=1)
    with pytest.raises(OfflineError, match="cannot be reached"):
        world.fetch(world.cdn.url.replace("http://", "https://") + "/a.safetensors")
