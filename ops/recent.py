"""What the last prompt made, for the next one.

ComfyUI runs a node anew when anything before it changes, be it a seed, and lets go of what the node
made before that. Models are only looked after weakly here; what lives when a prompt begins is held
for a while, so that the loader can hand it out again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Final
from weakref import WeakValueDictionary, ref

SECONDS: Final = 60.0
"""A model that no node asked for by then is let go: its loader did not have to run."""


class Recent:
    """Objects by key, as long as somebody else has them or a prompt has just begun."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._alive: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._held: dict[Hashable, Any] = {}
        self._timer: threading.Timer | None = None

    def note(self, key: Hashable, made: Any) -> None:
        """Look after an object."""
        self._alive[key] = made

    def hold(self) -> None:
        """Hold what lives, until it is taken or let go or the time is over."""
        self.let_go()
        self._held = dict(self._alive)
        if self._held:
            self._timer = threading.Timer(self._seconds, self._held.clear)
            self._timer.daemon = True
            self._timer.start()

    def take(self, key: Hashable) -> Any | None:
        """Return the object of a key if it lives; it is not held any more."""
        found = self._alive.get(key)
        self._held.pop(key, None)
        return found

    def let_go(self) -> None:
        """Hold nothing, to make room."""
        self._held.clear()  # the timer's thread may still have hold of this very dict
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Last:
    """What was made last of an object, as long as that object lives."""

    def __init__(self) -> None:
        self._of: ref[Any] | None = None
        self._key: Any = None
        self._made: Any = None

    def get(self, of: Any, key: Any, make: Callable[[], Any]) -> Any:
        """Return it again if it was made of the same object with an equal key, else make it."""
        if self._of is None or self._of() is not of or self._key != key:
            made = make()
            self._of, self._key, self._made = ref(of, self._forget), key, made
        return self._made

    def _forget(self, gone: ref[Any]) -> None:
        if gone is self._of:
            self._of = self._key = self._made = None
