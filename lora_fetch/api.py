"""Small questions to a service's API: asked again when it stumbles, answered as plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from .answer import Answer
from .errors import OfflineError
from .explain import failure
from .net import Client, Follow
from .pump import ask, wait
from .settings import Settings
from .source import Source

__all__ = ["Api", "Document", "Resolved", "pause", "rows", "table"]

T = TypeVar("T")
MAX_DOCUMENT = 32 * 2**20


class Document(NamedTuple):
    """What an API answered."""

    value: Any
    headers: Mapping[str, str]
    url: str
    """Where it was in the end."""


@dataclass(frozen=True)
class Resolved:
    """Where the bytes are, and what the source says about them."""

    url: str
    tar: bool = False
    name: str = ""
    """The file's name at the source."""
    size: int | None = None
    sha256: str | None = None
    revision: str | None = None
    """What tells one state of a moving name from the next."""
    trigger_words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    early: bool = False
    """Its source says that not everybody may have it yet."""
    older: Resolved | None = None
    """What to take where this one is in early access."""


@dataclass(frozen=True)
class Api:
    """A service, asked on behalf of one source."""

    source: Source
    client: Client
    cancelled: Callable[[], bool]

    @property
    def settings(self) -> Settings:
        """The rules of the fetch."""
        return self.client.settings

    def json(self, url: str, *, patient: bool = True) -> Document:
        """GET a JSON document; a mirror may redirect to the service that has it.

        Args:
            url: Where it is.
            patient: Ask again when the service stumbles.

        Raises:
            FetchError: the service refuses, fails or answers with something else.
        """

        def call() -> Document:
            with self._open("GET", url, follow=True) as answer:
                body = answer.text(MAX_DOCUMENT)
                try:
                    return Document(json.loads(body), answer.headers, answer.url)
                except (ValueError, RecursionError):
                    raise OfflineError(
                        f"{self.source.shown()}: the service answered with something that is not "
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
                raise failure(self.source, answer, self.settings)
        return answer


def pause(error: OfflineError, failures: int, settings: Settings) -> float:
    """Seconds to wait before the next try; raises the error when there is none.

    Raises:
        OfflineError: the one given.
    """
    asked = error.retry_after or 0.0
    if not error.transient or failures >= settings.attempts or asked > settings.max_wait:
        raise error
    return max(asked, min(settings.backoff * 2 ** (failures - 1), settings.max_wait))


def table(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one when the service sent something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
