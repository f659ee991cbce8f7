r"""Names matched with the expressions of a PEFT configuration, in bounded time.

PEFT looks for `(.*\.)?(KEY)$` in a module's name, where KEY is a regular expression out of the
file. Python's own engine can take years for some of those. This one keeps the set of places that it
may have reached, so that its work grows with expression and name alone, and counts its steps. It
reads what people write; what it does not read is an error, never another meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Union

from ...errors import LoraError, shorten

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 20
MAX_TIMES: Final = 1000
MAX_STEPS: Final = 10_000_000
"""All names of a file and all expressions together; a few seconds."""

_PLAIN: Final = re.compile(r"[\w.-]+")
_TIMES: Final = re.compile(r"\{(\d*)(,?)(\d*)\}")
_ESCAPES: Final[dict[str, Callable[[str], bool]]] = {
    letter: (lambda sign, one=re.compile(f"\\{letter}"): one.match(sign) is not None)
    for letter in "dDwWsS"
}


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Sign:
    fits: Callable[[str], bool]


@dataclass(frozen=True)
class _Edge:
    end: bool


@dataclass(frozen=True)
class _Row:
    items: tuple[_Node, ...]


@dataclass(frozen=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True)
class _Repeat:
    item: _Node
    least: int
    most: int | None


_Node = Union["_Text", "_Sign", "_Edge", "_Row", "_Choice", "_Repeat"]


class Patterns:
    """The expressions of one configuration, in its order.

    Args:
        keys: expressions, or ends of names.

    Raises:
        LoraError: one of them is not read.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._steps = MAX_STEPS
        self._keys = [(key, None if _PLAIN.fullmatch(key) else _parse(key)) for key in keys]

    def first(self, name: str) -> str | None:
        """Return the first expression that an end of a name fits; None if there is none.

        Raises:
            LoraError: that takes too many steps.
        """
        starts = {0} | {place + 1 for place, sign in enumerate(name) if sign == "."}
        for key, node in self._keys:
            if node is None:
                found = _ends_with(name, key)
            else:
                found = len(name) in self._ends(node, name, starts, key)
            if found:
                return key
        return None

    def _ends(self, node: _Node, name: str, starts: set[int], key: str) -> set[int]:
        """Return where in a name a part of an expression can end that starts at one of places."""
        self._steps -= len(starts) + 1
        if self._steps < 0:
            raise LoraError(f"the expression {shorten(key)} takes too long")
        if isinstance(node, _Text):
            return {at + len(node.text) for at in starts if name.startswith(node.text, at)}
        if isinstance(node, _Sign):
            return {at + 1 for at in starts if at < len(name) and node.fits(name[at])}
        if isinstance(node, _Edge):
            return starts & {len(name) if node.end else 0}
        if isinstance(node, _Row):
            for item in node.items:
                starts = self._ends(item, name, starts, key) if starts else starts
            return starts
        if isinstance(node, _Choice):
            return set[int]().union(*(self._ends(o, name, starts, key) for o in node.options))
        return self._repeated(node, name, starts, key)

    def _repeated(self, node: _Repeat, name: str, starts: set[int], key: str) -> set[int]:
        for _ in range(node.least):
            starts = self._ends(node.item, name, starts, key) if starts else starts
        reached, count = set(starts), node.least
        while starts and (node.most is None or count < node.most):
            starts = self._ends(node.item, name, starts, key) - reached
            reached |= starts
            count += 1
        return reached


def _ends_with(name: str, key: str) -> bool:
    """Whether a name, from one of its dots on, is a key in which a dot is any sign."""
    start = len(name) - len(key)
    if start < 0 or (start > 0 and name[start - 1] != "."):
        return False
    tail = name[start:]
    return tail == key or all(k in (".", t) for k, t in zip(key, tail, strict=True))


# --- reading an expression ---


def _parse(key: str) -> _Node:
    reader = _Reader(key)
    node = reader.choice(0)
    if reader.at < len(key):
        reader.fail()
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        if len(text) > MAX_LENGTH:
            self.fail()

    def fail(self) -> None:
        raise LoraError(f"the expression {shorten(self.text)} is none that can be read")

    def next(self) -> str:
        """Return the next sign, none at the end."""
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        sign = self.next()
        if not sign:
            self.fail()
        self.at += 1
        return sign

    def choice(self, depth: int) -> _Node:
        """Read what stands between `|`, up to the end or a `)`."""
        if depth > MAX_DEPTH:
            self.fail()
        options = [self.row(depth)]
        while self.next() == "|":
            self.at += 1
            options.append(self.row(depth))
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def row(self, depth: int) -> _Node:
        items: list[_Node] = []
        while self.next() not in ("", "|", ")"):
            item = self.repeat(self.item(depth))
            before = items[-1] if items else None
            if isinstance(item, _Text) and isinstance(before, _Text):
                items[-1] = _Text(before.text + item.text)
            else:
                items.append(item)
        return _Row(tuple(items))

    def item(self, depth: int) -> _Node:
        sign = self.take()
        if sign == "(":
            return self.group(depth)
        if sign in "^$":
            return _Edge(sign == "$")
        if sign == "[":
            return self.signs()
        if sign in "*+?":
            self.fail()
        if sign == "\\":
            sign = self.take()
            return _Sign(_ESCAPES[sign]) if sign in _ESCAPES else _Text(self.itself(sign))
        return _Sign(_any) if sign == "." else _Text(sign)

    def group(self, depth: int) -> _Node:
        if self.next() == "?":
            named = re.compile(r"\?:|\?P<[A-Za-z_]\w*>").match(self.text, self.at)
            if named is None:
                self.fail()
            else:
                self.at = named.end()
        node = self.choice(depth + 1)
        if self.take() != ")":
            self.fail()
        return node

    def escape(self) -> Callable[[str], bool]:
        """Read what follows a backslash in a class."""
        sign = self.take()
        return _ESCAPES[sign] if sign in _ESCAPES else self.itself(sign).__eq__

    def itself(self, sign: str) -> str:
        """Return a sign that a backslash leaves as it is; it gives letters another meaning."""
        if sign.isalnum():
            self.fail()
        return sign

    def signs(self) -> _Node:
        """Read a class up to its `]`."""
        other = self.next() == "^"
        self.at += other
        tests: list[Callable[[str], bool]] = []
        while self.next() != "]" or not tests:
            first = self.take()
            if first == "\\":
                tests.append(self.escape())
            elif self.next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                tests.append(_between(first, self.take()))
            else:
                tests.append(first.__eq__)
        self.at += 1
        return _Sign(_one_of(tests, other))

    def repeat(self, item: _Node) -> _Node:
        times = self.times()
        if times is None:
            return item
        if self.next() == "?":  # as few as possible: the same names fit
            self.at += 1
        elif self.next() in ("*", "+") or isinstance(item, _Edge):
            self.fail()
        return _Repeat(item, *times)

    def times(self) -> tuple[int, int | None] | None:
        known: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        sign = self.next()
        if sign in known:
            self.at += 1
            return known[sign]
        found = _TIMES.match(self.text, self.at)
        if found is None or not found[1] + found[3]:
            return None
        self.at = found.end()
        least = int(found[1] or 0)
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MAX_TIMES or (most is not None and most < least):
            self.fail()
        return least, most


def _any(sign: str) -> bool:
    return sign != "\n"


def _between(first: str, last: str) -> Callable[[str], bool]:
    return lambda sign: first <= sign <= last


def _one_of(tests: Sequence[Callable[[str], bool]], other: bool) -> Callable[[str], bool]:
    return lambda sign: any(test(sign) for test in tests) != other
