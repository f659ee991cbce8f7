"""Calls that found no room. A client makes them again, and says only that it does so."""

from __future__ import annotations

from collections import deque

Call = tuple[str, str]
"""Who called, and the digest of what was asked."""

_MOST = 10_000


class Refused:
    """Remembers refused calls: each of them is a new one when it comes again."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, Call]] = deque(maxlen=_MOST)

    def add(self, call: Call, now: float) -> None:
        """Remember that a call was refused."""
        self._calls.append((now, call))

    def take(self, call: Call, since: float) -> bool:
        """Whether a call was refused since a moment, which is forgotten with that."""
        while self._calls and self._calls[0][0] < since:
            self._calls.popleft()
        found = next((each for each in self._calls if each[1] == call), None)
        if found is not None:
            self._calls.remove(found)
        return found is not None
