"""A new service is one module and one line: here a fifth one, made and used as the others are."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from fetch.servers import Server, lora, sha256
from fetch.services import answer, refusal
from fetch.world import World, entry_of
from flux_hotswap.errors import (
    FetchError,
    NotFoundError,
    NotThisWayError,
    OfflineError,
    SourceError,
)
from flux_hotswap.files.answer import Answer
from flux_hotswap.files.explain import Asked
from flux_hotswap.lora_fetch.api import Api, Resolved, table
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.services import SERVICES
from flux_hotswap.lora_fetch.source import Address, Service, Source

ROOM = Path(__file__).resolve().parents[2] / "lora_fetch"
DATA = lora(20_000, seed=5)


# --- the module ---


@dataclass(frozen=True)
class Book(Source):
    """A LoRA on a shelf, by its name."""

    kind: ClassVar[str] = "shelf"
    prefix: ClassVar[str] = "shelf:"

    home: str
    name: str

    @property
    def moving(self) -> bool:
        """A book can get a new edition."""
        return True

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return f"shelf-{self.name}"

    def canonical(self) -> str:
        """The one spelling of this source."""
        return f"shelf:{self.name}"

    def asked(self) -> Asked:
        """What a refusal of the shelf means."""
        return AskedShelf(self.shown())

    def resolve(self, api: Api, *, probe: bool) -> Resolved:  # noqa: ARG002, it is always asked
        """Ask the shelf for the card of the book."""
        card = table(api.json(f"{self.home}/cards/{self.name}").value)
        return Resolved(
            url=f"{self.home}{card['path']}",
            name=str(card["path"]).rsplit("/", 1)[-1],
            sha256=str(card["sha256"]),
            trigger_words=("BOOK",),
        )


class AskedShelf(Asked):
    """A book that is asked for."""

    def refused(self, answer: Answer, words: str) -> FetchError:
        """The shelf says no more than that."""
        return NotFoundError(f"{self.shown} is lent out{words}. Come back.", status=answer.status)


def shelf(home: str) -> Service:
    """The service of one shelf.

    Args:
        home: Where it answers.
    """

    def read(name: str) -> Book:
        if not name.isalnum():
            raise NotThisWayError("a book has a name of letters, as in shelf:moby")
        return Book(home, name)

    def page(address: Address) -> Book:
        return read(address.path.strip("/"))

    return Service(
        sources=(Book,),
        form="shelf:name",
        prefixes={"shelf": read},
        sites=frozenset(("shelf.example",)),
        page=page,
    )


# --- its line ---


@pytest.fixture
def home(server: Callable[..., Server]) -> Server:
    return server()


@pytest.fixture
def known(home: Server) -> tuple[Service, ...]:
    """The list with one more line."""
    return (shelf(home.url), *SERVICES)


def offer(home: Server) -> None:
    home.file("/files/moby-2.safetensors", DATA)
    card = {"path": "/files/moby-2.safetensors", "sha256": sha256(DATA)}
    home.routes["/cards/moby"] = answer(card)


# --- what it then can ---


@pytest.mark.parametrize(
    "text",
    ["shelf:moby", ' "Shelf: moby" ', "https://www.shelf.example/moby", "shelf.example/moby/"],
)
def test_its_texts_are_read(text: str, home: Server, known: tuple[Service, ...]) -> None:
    source = parse(text, known)
    assert source == Book(home.url, "moby")
    assert parse(source.canonical(), known) == source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shelf:", "a name of letters"),
        ("shelf.example", "a name of letters"),
        ("shelf:moby#sha256=12", "a name of letters"),
        (f"https://shelf.example/moby#sha256={sha256(DATA)}", "a version or a commit"),
        ("ftp://shelf.example/moby", "Accepted are: shelf:name, owner/name (Replicate)"),
    ],
)
def test_its_texts_are_refused(text: str, words: str, known: tuple[Service, ...]) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text, known)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["a/b", "hf:a/b", "civitai:5", "https://h.io/x.tar", "data:,x"])
def test_the_others_are_read_as_before(text: str, known: tuple[Service, ...]) -> None:
    assert parse(text, known) == parse(text)


@pytest.mark.parametrize("text", ["a/b", "hf:a/b", "https://h.io/x.safetensors", "x.safetensors"])
def test_alone_it_takes_nothing_else(text: str, home: Server) -> None:
    with pytest.raises(SourceError, match=r"names no LoRA\. Accepted are: shelf:name"):
        parse(text, [shelf(home.url)])


def test_it_is_fetched(world: World, home: Server, known: tuple[Service, ...]) -> None:
    offer(home)
    found = world.fetch("shelf:moby", services=known)
    assert found.path.read_bytes() == DATA
    assert found.path.name == f"shelf-moby-moby-2-{sha256(DATA)[:8]}.safetensors"
    assert (found.source, found.trigger_words) == ("shelf:moby", ("BOOK",))
    assert world.fetch("https://shelf.example/moby", services=known).from_cache
    assert len(home.asked("/cards")) == 1
    assert entry_of(world).source == "shelf:moby"


def test_it_is_looked_up_again(world: World, home: Server, known: tuple[Service, ...]) -> None:
    offer(home)
    world.fetch("shelf:moby", services=known)
    world.clock.sleep(world.settings.recheck_after + 1)
    home.routes["/cards/moby"] = refusal(410)
    (warning,) = world.fetch("shelf:moby", services=known).warnings
    assert "using the one from before. shelf:moby is lent out" in warning


@pytest.mark.parametrize("path", ["/cards/moby", "/files/moby-2.safetensors"])
def test_its_refusal_is_explained(
    path: str, world: World, home: Server, known: tuple[Service, ...]
) -> None:
    offer(home)
    home.routes[path] = refusal(404)
    with pytest.raises(NotFoundError, match="shelf:moby is lent out"):
        world.fetch("shelf:moby", services=known)


def test_its_outage_is_one_as_everywhere(
    world: World, home: Server, known: tuple[Service, ...]
) -> None:
    home.routes["/cards/moby"] = refusal(503)
    with pytest.raises(OfflineError, match="busy or failing"):
        world.fetch("shelf:moby", services=known)
    assert len(home.asked("/cards")) == world.settings.attempts


# --- why that is enough ---


def test_what_is_common_names_no_service_that_is_asked() -> None:
    """Files in the loras folders and data: URIs are not asked for; the store knows those two."""
    named: set[str] = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("services"):
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert named == {"services.SERVICES", "services.data.DataURI", "services.local.LocalFile"}


def test_every_service_has_what_the_list_needs() -> None:
    sources = [source for service in SERVICES for source in service.sources]
    assert len({source.kind for source in sources}) == len(sources)
    sites = [site for service in SERVICES for site in service.sites]
    assert len(set(sites)) == len(sites)
    assert all(site == site.lower().removeprefix("www.") for site in sites)
    prefixes = {prefix for service in SERVICES for prefix in service.prefixes}
    assert all(prefix == prefix.lower().strip() for prefix in prefixes)
    assert {source.prefix.rstrip(":") for source in sources if source.prefix} <= prefixes
