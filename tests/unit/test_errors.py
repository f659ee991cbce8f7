"""The tree of errors: what is raised on purpose is in it, and says what is wrong and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flux_hotswap.errors as errors
from flux_hotswap.errors import HotswapError

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "texts.py",
    "prediction",
    "files",
    "lora_fetch",
    "ops",
    "engine",
    "gate",
    "nodes",
    "hosted_api",
)
TREE = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, HotswapError)
}
BASES = {"ValueError", "LookupError", "FileNotFoundError"}

ALLOWED: dict[str, str] = {
    "files/settings.py ValueError": "no size; its callers name the variable",
    "files/deadline.py TimeoutError": "what a socket raises, for urllib3",
    "files/tar.py OSError": "as the disk would; `disk_errors` says it in words",
    "files/pump.py AssertionError": "cannot happen: a call that ends says how",
    "lora_fetch/parser.py ValueError": "no host; caught there, as what urllib raises",
    "lora_fetch/source.py TypeError": "a call that our own code must not make",
    "ops/safety/weights.py FileNotFoundError": "caught there, as what a download raises",
    "engine/weights.py OSError": "what `locate_or_fetch` wants of a download that failed",
    "prediction/parameters.py ValueError": "a record that our own nodes did not make",
}
"""What is raised on purpose and is no error of the tree, with the reason."""


def raised(path: Path) -> set[str]:
    """The classes that a file raises by their names; what it hands on is none of its own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called = node.exc.func
            name = called.id if isinstance(called, ast.Name) else ""
            if re.fullmatch(r"[A-Z]\w*(?:Error|Exception)", name):
                found.add(name)
    return found


def modules() -> list[Path]:
    found = [ROOT / "texts.py"]
    for room in ROOMS[1:]:
        found += sorted((ROOT / room).rglob("*.py"))
    return found


def test_what_is_raised_is_in_the_tree() -> None:
    outside = {
        f"{path.relative_to(ROOT).as_posix()} {name}"
        for path in modules()
        for name in raised(path) - TREE.keys()
    }
    assert outside == ALLOWED.keys() & outside, "neither in the tree nor on the list"
    assert ALLOWED.keys() == outside, "on the list, and raised no more"


REMEDY = re.compile(
    r"(?:^|[.;:,(] |, or )(?:or |then )?(?:add|accept|ask|buy|call|check|choose|connect|copy|"
    r"delete|download|encode|free|give|install|load|make|name|open|put|raise|remove|run|save|see|"
    r"send|set|share|take|try|unset|use|wait|write)\b",
    re.IGNORECASE,
)
"""A message tells somebody to do something."""
HANDS_ON = {"remedy", "hint", "error", "why", "reason", "describe", "refusal", "wrong", "unpinned"}
HANDS_ON |= {"_forms", "_missing", "_what_it_is"}
"""Names of what a message ends with, where the remedy is in there."""
NO_REMEDY = {
    "The fetch was cancelled. What has arrived is kept for the next try.": "it was asked for",
    "it lacks {}{}": "`engine.checkpoint` names the file and says what to choose",
    "{} is no matrix": "as above",
    "it needs {} GB, {} allows {} GB": "`Kept.open` goes on without, and says what to do",
    "it needs {} GB, and {} GB are free": "as above",
    "it names {} twice, the second time as {}": "of keys; `engine.loras` names the file",
    "the expression {} is none that can be read": "of names; as above",
    "the expression {} takes too long": "as above",
    "it knows {} labels instead of {}": "`_broken` names the file and says what to do",
    "it is not made for pictures of {}x{}": "as above",
    "its width {} is not a multiple of {}": "as above",
}


OWN_REMEDY = {
    "RequestError": "its second half is one",
    "WorkerLostError": "the prediction is drawn again, and the log says so",
}


def words_of(node: ast.expr) -> tuple[str, set[str]]:
    """A message with {} for values, and the names that it takes them from."""
    if isinstance(node, ast.Constant):
        return str(node.value), set()
    if isinstance(node, ast.JoinedStr):
        parts = [words_of(part) for part in node.values]
        return "".join(text for text, _ in parts), set().union(*(names for _, names in parts))
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    names |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    fixed = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    inside = " ".join(text for text in fixed if isinstance(text, str))
    return inside if isinstance(node, (ast.BinOp, ast.IfExp)) else "{}", names


def messages() -> Iterator[tuple[str, str]]:
    """Where each error is made, and what it says."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in TREE.keys() - OWN_REMEDY.keys():
                continue
            # The first of a call's error is its HTTP status.
            first = 1 if node.func.id == "CallError" else 0
            parts = [words_of(argument) for argument in node.args[first:]]
            if not any(names & HANDS_ON for _, names in parts):
                where = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
                yield where, " ".join(text for text, _ in parts)


def test_every_message_says_what_to_do() -> None:
    said = list(messages())
    assert len(said) > 90, "the walk finds few of them"
    without = {text for _, text in said if not REMEDY.search(text)}
    assert without - NO_REMEDY.keys() == set()
    assert NO_REMEDY.keys() - without == set(), "on the list, and said no more"


def test_the_root_itself_is_never_raised() -> None:
    assert not [path for path in modules() if "HotswapError" in raised(path)]


def test_every_class_is_raised_somewhere() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules())
    used = {name for name in TREE if re.search(rf"\b{name}\(", source)}
    parents = {base.__name__ for cls in TREE.values() for base in cls.__bases__}
    assert TREE.keys() - used - parents == set()


def drawn() -> list[tuple[str, str, tuple[str, ...]]]:
    """The tree in the docstring: name, parent and other bases, from the top down."""
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"((?:│   |    )*)(?:[├└]── )?([A-Z]\w+Error)\b(?: \((\w+)\))?", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + (1 if "── " in line else 0)
        above[depth:] = [found[2]]
        parent = above[depth - 1] if depth else "Exception"
        rows.append((found[2], parent, (found[3],) if found[3] else ()))
    return rows


def test_the_docstring_draws_the_tree() -> None:
    bases = {
        name: tuple(
            base.__name__ for base in cls.__bases__ if base.__name__ in BASES | {"Exception"}
        )
        for name, cls in TREE.items()
    }
    parents = {
        name: next((b.__name__ for b in cls.__bases__ if b.__name__ in TREE), "Exception")
        for name, cls in TREE.items()
    }
    shown = {name: (parent, other) for name, parent, other in drawn()}
    hidden = {"StatusError"}  # what three of them have in common
    assert shown.keys() == TREE.keys() - hidden
    for name, (parent, other) in shown.items():
        real = parents[name]
        assert parent in (real, parents.get(real) if real in hidden else real), name
        if parent != "Exception":
            assert other == tuple(base for base in bases[name] if base != "Exception"), name


@pytest.mark.parametrize("name", [name for name in TREE if name != "HotswapError"])
def test_catching_the_root_catches_it(name: str) -> None:
    assert issubclass(TREE[name], HotswapError)
    assert TREE[name].__doc__


def test_a_field_goes_before_the_message() -> None:
    error: Any = errors.NotFoundError("a/b: there is no such model. Check the name.", status=404)
    error.at("lora")
    assert str(error) == "lora: a/b: there is no such model. Check the name."
    assert error.status == 404
    missing = errors.MissingFileError("x.safetensors", "x.safetensors is not there; download it")
    missing.at("dev_file")
    assert str(missing) == "dev_file: x.safetensors is not there; download it"
