"""What each node did, kept for the record of the picture that comes out in the end.

A picture is a bare tensor: it cannot carry what made it. So each of our nodes notes what it did
under the part of the graph that it stands at the end of, and the Save node looks up those before
it. ComfyUI keeps the outputs of nodes by the same part of the graph: where it runs a node anew, the
note is new too, and where it does not, the note from then still tells the truth.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from comfy_api.latest import io

from ..prediction.fill import is_link

HIDDEN: Final = [io.Hidden.prompt, io.Hidden.unique_id]
"""What a node needs to know of itself to note something."""

KEPT: Final = 2000
"""So many notes are kept; the oldest go first."""

_notes: OrderedDict[str, dict[str, Any]] = OrderedDict()


def note(node: type[io.ComfyNode], **what: Any) -> None:
    """Keep what a node did just now.

    Args:
        node: the class that ComfyUI runs, which knows its place in the graph.
        what: JSON values by their key in the record.
    """
    prompt, place = _place(node)
    if place not in prompt:
        return  # made while the graph runs, by a node of another pack: no Save node sees it
    key = _keys(prompt, place)[place]
    _notes[key] = what
    _notes.move_to_end(key)
    while len(_notes) > KEPT:
        _notes.popitem(last=False)


def notes_before(node: type[io.ComfyNode]) -> list[dict[str, Any]]:
    """Return what the nodes before a node did, those that ran first in front."""
    prompt, place = _place(node)
    if place not in prompt:
        return []
    keys = _keys(prompt, place)
    return [_notes[key] for entry, key in keys.items() if entry != place and key in _notes]


def _place(node: type[io.ComfyNode]) -> tuple[Mapping[str, Any], str]:
    hidden: Any = node.hidden
    return hidden.prompt or {}, str(hidden.unique_id)


def _keys(prompt: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the key of a node and of all before it, those that run first in front.

    A node's key is a hash of its class, its values and the keys of the nodes that feed it, so that
    its number in the graph does not matter.
    """
    keys: dict[str, str] = {}
    todo = [place]
    while todo:
        entry = todo[-1]
        missing = [feeding for feeding in _feeding(prompt, entry) if feeding not in keys]
        if missing and entry not in keys:
            todo += missing
            continue
        todo.pop()
        if entry not in keys:
            keys[entry] = _key(prompt[entry], keys)
    return keys


def _feeding(prompt: Mapping[str, Any], place: str) -> list[str]:
    inputs: Mapping[str, Any] = prompt[place].get("inputs") or {}
    sources = [str(value[0]) for value in inputs.values() if is_link(value)]
    return [source for source in sources[::-1] if source in prompt]


def _key(entry: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    values = {
        name: [keys.get(str(value[0])), value[1]] if is_link(value) else {"value": value}
        for name, value in (entry.get("inputs") or {}).items()
    }
    text = json.dumps([entry.get("class_type"), values], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
