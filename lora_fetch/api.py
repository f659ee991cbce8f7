"""Small questions to a service's API: asked again when it stumbles, answered as plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from ..errors import OfflineError, RefusedError
from ..files.addresses import bare_url
from ..files.answer import Answer
from ..files.download import Remote
from ..files.explain import Asked
from ..files.net import Client, Follow
from ..files.pump import ask, pause, wait
from ..files.settings import Settings

__all__ = ["Api", "Document", "Resolved", "rows", "table"]

T = TypeVar("T")
MAX_DOCUMENT = 32 * 2**20


class Document(NamedTuple):
    """What an API answered."""

    value: Any
    headers: Mapping[str, str]
    url: str
    """Where it was in the end."""
    text: str
    """The value as it was written."""


@dataclass(frozen=True)
class Resolved(Remote):
    """Where a source's bytes are, and what a service says about them."""

    name: str = ""
    """The file's name at the source."""
    trigger_words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    early: bool = False
    """Its source says that not everybody may have it yet."""
    config: str | None = None
    """Where the settings are that the file's alphas stand in."""
    older: Resolved | None = None
    """What to take where this one is in early access."""


@dataclass(frozen=True)
class Api:
    """A service, asked on behalf of one source."""

    asked: Asked
    client: Client
    cancelled: Callable[[], bool]

    @property
    def settings(self) -> Settings:
        """The rules of the fetch."""
        return self.client.settings

    def json(self, url: str, *, patient: bool = True, limit: int = MAX_DOCUMENT) -> Document:
        """GET a JSON document; a mirror may redirect to the service that has it.

        Args:
            url: Where it is.
            patient: Ask again when the service stumbles.
            limit: Bytes that it may have.

        Raises:
            FetchError: the service refuses, fails or answers with something else.
        """

        def call() -> Document:
            with self._open("GET", url, follow=True) as answer:
                body = answer.text(limit + 1)
                if len(body.encode()) > limit:
                    raise RefusedError(
                        f"{self.asked.shown}: {bare_url(answer.url)} is larger than {limit} bytes, "
                        "more than anybody needs there. Check the source, or ask its author."
                    )
                try:
                    return Document(json.loads(body), answer.headers, answer.url, body)
                except (ValueError, RecursionError):
                    raise OfflineError(
                        f"{self.asked.shown}: the service answered with something that is not "
                        "JSON, as a login page or a proxy does. Try again later."
                    ) from None

        return self.retry(call) if patient else self._ask(call)

    def look(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        follow: bool | Follow,
    ) -> Answer:
        """Ask for the headers alone; the answer comes back closed. For ``follow`` see `Client`.

        Raises:
            FetchError: the service refuses or fails.
        """

        def call() -> Answer:
            with self._open(method, url, headers=headers, follow=follow) as answer:
                return answer

        return self.retry(call)

    def retry(self, call: Callable[[], T]) -> T:
        """Call until it does not fail in a passing way.

        Raises:
            FetchError: as the call, in the end.
        """
        failures = 0
        while True:
            try:
                return self._ask(call)
            except OfflineError as error:
                failures += 1
                seconds = pause(error, failures, self.settings)
            wait(seconds, sleep=self.settings.sleep, cancelled=self.cancelled)

    def _ask(self, call: Callable[[], T]) -> T:
        seconds = 2 * self.settings.answer_seconds  # for the head, and for the body
        return ask(call, seconds=seconds, cancelled=self.cancelled)

    def _open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        follow: bool | Follow,
    ) -> Answer:
        answer = self.client.request(method, url, headers=headers, follow=follow)
        if answer.status >= 400:
            with answer:
                raise self.asked.failure(answer, self.settings)
        return answer


def table(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one when the service sent something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
