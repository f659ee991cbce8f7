"""What each node did, kept for the record of the picture that comes out in the end.

A picture is a bare tensor: it cannot carry what made it. So each of our nodes notes what it did
under the part of the graph that it stands at the end of, and the Save node looks up those before
it. ComfyUI keeps the outputs of nodes by the same part of the graph: where it runs a node anew, the
note is new too, and where it does not, the note from then still tells the truth. A node that takes
a list is called once for each item, and notes something each time.

Where nobody can say which node or which call a picture is from, its record leaves out that on which
they differ.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from comfy_api.latest import io

from ..prediction.fill import is_link
from ..prediction.record import assemble

HIDDEN: Final = [io.Hidden.prompt, io.Hidden.unique_id]
"""What a node needs to know of itself to note something."""

KEPT: Final = 2000
"""Of so many nodes the notes are kept; the oldest go first."""

_notes: OrderedDict[str, dict[int, dict[str, Any]]] = OrderedDict()
"""By a node's key, then by the number of the call, which is the item's in a list."""

_noting: set[str] = set()
"""Classes that have noted something."""


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
    call = _call()
    if call == 0 or key not in _notes:
        _notes[key] = {}  # the calls of an earlier run may have been more
    _notes[key][call] = what
    _noting.add(prompt[place]["class_type"])
    _notes.move_to_end(key)
    while len(_notes) > KEPT:
        _notes.popitem(last=False)


def notes_before(node: type[io.ComfyNode]) -> list[dict[str, Any]]:
    """Return what the nodes before a node did for this call of it, first things first."""
    prompt, place = _place(node)
    if place not in prompt:
        return []
    keys = _keys(prompt, place)
    del keys[place]
    unsure = _unsure(prompt, keys)
    return [
        {name: value for name, value in what.items() if name not in unsure[entry]}
        for entry, what in _told(keys).items()
    ]


def _call() -> int:
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return (context.list_index if context else None) or 0


def _told(keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return by node what it noted in this call; ComfyUI repeats the last item of a list."""
    call = _call()
    calls = {entry: _notes[key] for entry, key in keys.items() if key in _notes}
    return {entry: each.get(call, each[max(each)]) for entry, each in calls.items()}


# --- what nobody can say ---


def _unsure(prompt: Mapping[str, Any], keys: Mapping[str, str]) -> defaultdict[str, set[str]]:
    """Return by node the names in its notes that may not be true of the picture.

    Of the branches before lazy inputs one has run, and which one is the node's own affair; not one
    where a note is missing. A node that takes or gives a whole list mixes the calls of those before
    it.
    """
    unsure: defaultdict[str, set[str]] = defaultdict(set)
    told = _told(keys)
    silent = {e for e in keys if prompt[e]["class_type"] in _noting} - told.keys()
    for place in keys:
        branches = [_keys(prompt, source) for source in _lazy(prompt, place)]
        branches = [branch for branch in branches if not silent & branch.keys()]
        differing = _differing(
            assemble((told[entry] for entry in keys if entry in branch and entry in told), 0, 0, 0)
            for branch in branches
        )
        for entry in {entry for branch in branches for entry in branch}:
            unsure[entry] |= differing
        if _mixes_calls(prompt[place]):
            for entry, key in _keys(prompt, place).items():
                unsure[entry] |= _differing(_notes.get(key, {}).values())
    return unsure


def _differing(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names that are not the same in all records."""
    first, *others = list(records) or [{}]
    names = {*first, *(name for record in others for name in record)}
    return {name for name in names for each in others if each.get(name) != first.get(name)}


def _lazy(prompt: Mapping[str, Any], place: str) -> list[str]:
    """Return the nodes that feed a node's lazy inputs."""
    from comfy_execution.graph import get_input_info

    kind = _class(prompt[place])
    inputs: Mapping[str, Any] = prompt[place].get("inputs") or {}
    links = {name: str(value[0]) for name, value in inputs.items() if is_link(value)}
    if kind is None or len(links) < 2:
        return []
    offered = kind.INPUT_TYPES()
    infos = {name: get_input_info(kind, name, offered)[2] or {} for name in links}
    return [entry for name, entry in links.items() if infos[name].get("lazy") and entry in prompt]


def _mixes_calls(entry: Mapping[str, Any]) -> bool:
    kind = _class(entry)
    return getattr(kind, "INPUT_IS_LIST", False) or any(getattr(kind, "OUTPUT_IS_LIST", ()) or ())


def _class(entry: Mapping[str, Any]) -> Any:
    from comfy_execution import graph

    core: Any = graph.nodes  # in this pack `import nodes` would mean this folder
    return core.NODE_CLASS_MAPPINGS.get(entry["class_type"])


# --- the keys of nodes ---


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
