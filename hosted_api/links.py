"""Addresses of files that anybody can read who was given them, until they expire; the secrets.

The clients read pictures without a token, so the address itself is what lets them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from ..errors import StoreError
from ..files.disk import disk_errors, write_whole
from ..files.lock import locked

SECRETS: Final = "secrets.json"
PREFIX: Final = "whsec_"
"""What clients take off a webhook secret before they decode it."""

_LINKS_BYTES: Final = 32
_WEBHOOKS_BYTES: Final = 24


class Links:
    """Signs addresses and checks them.

    Args:
        secret: only this server knows it.
        clock: seconds since 1970.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock

    def sign(self, path: str, seconds: float) -> str:
        """Return a path with a query that lets everybody in for so long.

        Args:
            path: from `/v1` on, whatever stands before it: a proxy may take that away.
            seconds: from now on.
        """
        return self.until(path, self._clock() + seconds)

    def until(self, path: str, moment: float) -> str:
        """Return a path with a query that lets everybody in until a moment: always the same one."""
        expires = str(int(moment))
        return f"{path}?expires={expires}&signature={self._signature(path, expires)}"

    def check(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether a query is one that `sign` gave for this path, and has not expired."""
        expires, given = query.get("expires", ""), query.get("signature", "")
        right = self._signature(path, expires)
        if not hmac.compare_digest(right.encode(), given.encode()):
            return False
        return self._clock() < int(expires)  # it was signed, so it is a number

    def _signature(self, path: str, expires: str) -> str:
        digest = hmac.digest(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class Secrets:
    """What only this server knows.

    Attributes:
        links: signs addresses.
        webhooks: the keys that sign webhooks are made of it.
    """

    links: bytes = field(repr=False)
    webhooks: str = field(repr=False)

    def webhook_key(self, owner: str) -> str:
        """Return the key that signs an owner's webhooks, `whsec_` and base64.

        Each has one of its own: who may read it so as to check messages could sign them too.
        """
        made = base64.b64decode(self.webhooks.removeprefix(PREFIX))
        digest = hmac.digest(made, f"owner {owner}".encode(), hashlib.sha256)
        return PREFIX + base64.b64encode(digest[:_WEBHOOKS_BYTES]).decode()

    @property
    def mark(self) -> str:
        """What this API's files are known by in a ComfyUI that others use too; no secret."""
        return f"{hashlib.sha256(b'mark' + self.links).hexdigest()[:12]}-"


def load_secrets(state: Path) -> Secrets:
    """Return the secrets of a state folder; they are made once.

    Raises:
        StoreError: the file is damaged, or the folder cannot be used.
        NoRoomError: the disk is full.
    """
    path = state / SECRETS
    with disk_errors(path):
        state.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), sleep=time.sleep, cancelled=lambda: False):
            if not path.exists():
                _write(path)
            return _read(path)


def _write(path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # of a process that was killed here
    fresh.touch(mode=0o600, exist_ok=False)
    made = {
        "links": base64.b64encode(secrets.token_bytes(_LINKS_BYTES)).decode(),
        "webhooks": PREFIX + base64.b64encode(secrets.token_bytes(_WEBHOOKS_BYTES)).decode(),
    }
    write_whole(path, json.dumps(made), by=fresh)


def _read(path: Path) -> Secrets:
    try:
        made = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        links = base64.b64decode(made["links"], validate=True)
        webhooks = str(made["webhooks"])
        key = base64.b64decode(webhooks.removeprefix(PREFIX), validate=True)
    except (ValueError, KeyError, TypeError):
        links, webhooks, key = b"", "", b""
    if (len(links), len(key)) != (_LINKS_BYTES, _WEBHOOKS_BYTES):
        raise StoreError(
            f"{path} is damaged. Remove it: links given out so far end then, and receivers of "
            "webhooks need the new secret."
        )
    return Secrets(links, webhooks)
