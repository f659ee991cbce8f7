"""A graph as a file of the graph editor, and such a file back as an API prompt."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..prediction.fill import Prompt
from .graph import Graph, Node, Wire
from .layout import Placed, buses, groups, note_place, place
from .nodes_info import InputInfo, NodeInfo
from .recipes import MODELS, Recipe

PACK_ID: Final = "flux-hotswap"
CORE_ID: Final = "comfy-core"

_SOCKET: Final = 20
_ROW: Final = 24
_TEXT: Final = 104
_MARGIN: Final = 6
_WIDGETS_MARGIN: Final = 8
_NOTE_SIZE: Final = (420, 260)


def to_ui(graph: Graph, recipe: Recipe) -> dict[str, Any]:
    """Return graph as the editor's workflow file."""
    links = list(_links(graph))
    placed = place(graph, {node.id: _height(node) for node in graph.nodes})
    points, taken = buses(placed, links)
    note_id = len(graph.nodes) + 1
    nodes = [_node(placed[node.id], links) for node in graph.nodes]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_ID}/{recipe.name}")),
        "revision": 0,
        "last_node_id": note_id,
        "last_link_id": len(links),
        "nodes": [*nodes, _note(recipe, note_id, note_place(placed))],
        "links": links,
        "groups": groups(placed),
        "config": {},
        "extra": {"title": recipe.title, "reroutes": points, "linkExtensions": taken},
        "version": 0.4,
    }


def to_prompt(workflow: dict[str, Any], classes: Mapping[str, NodeInfo]) -> Prompt:
    """Return an editor's workflow file as an API prompt, as the editor's own export would."""
    origin = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        info = classes.get(node["type"])
        if info is None:  # notes have no class on the server
            continue
        inputs: dict[str, Any] = dict(_widget_values(info, node["widgets_values"]))
        for slot in node["inputs"]:
            if slot.get("link") is not None:
                inputs[slot["name"]] = origin[slot["link"]]
        ordered = {entry.name: inputs[entry.name] for entry in info.inputs if entry.name in inputs}
        prompt[str(node["id"])] = {
            "class_type": info.name,
            "inputs": ordered,
            "_meta": {"title": node.get("title", info.title)},
        }
    return prompt


def _widget_values(info: NodeInfo, values: list[Any]) -> Iterator[tuple[str, Any]]:
    remaining = iter(values)
    for entry in info.inputs:
        if not entry.is_widget:
            continue
        yield entry.name, next(remaining)
        if entry.has_control:
            next(remaining)


def _links(graph: Graph) -> Iterator[list[Any]]:
    """Yield [id, from node, from slot, to node, to slot, type] of each wire."""
    number = 0
    for node in graph.nodes:
        for slot, entry in enumerate(_slots(node)):
            value = node.inputs.get(entry.name)
            if isinstance(value, Wire):
                number += 1
                yield [number, value.node, value.index, node.id, slot, value.type]


def _slots(node: Node) -> list[InputInfo]:
    """Return the inputs of a node in the order of its slots: wires first, then widgets."""
    return sorted(node.info.inputs, key=lambda entry: entry.is_widget)


def _node(placed: Placed, links: list[list[Any]]) -> dict[str, Any]:
    node = placed.node
    into = {link[4]: link[0] for link in links if link[3] == node.id}
    inputs: list[dict[str, Any]] = []
    for slot, entry in enumerate(_slots(node)):
        shown: dict[str, Any] = {"name": entry.name, "type": entry.type, "link": into.get(slot)}
        if entry.is_widget:
            shown["widget"] = {"name": entry.name}
        inputs.append(shown)
    outputs = [
        {
            "name": name,
            "type": kind,
            "links": [link[0] for link in links if link[1:3] == [node.id, index]] or None,
        }
        for index, (name, kind) in enumerate(node.info.outputs)
    ]
    is_ours = node.info.name.startswith("FluxHotswap")
    properties: dict[str, Any] = {
        "Node name for S&R": node.info.name,
        "cnr_id": PACK_ID if is_ours else CORE_ID,
    }
    if node.info.name in MODELS:
        properties["models"] = [vars(model) for model in MODELS[node.info.name]]
    return {
        "id": node.id,
        "type": node.info.name,
        "pos": [placed.left, placed.top],
        "size": [placed.width, placed.height],
        "flags": {},
        "order": node.id - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "title": node.info.title,
        "properties": properties,
        "widgets_values": list(_values(node)),
    }


def _values(node: Node) -> Iterator[Any]:
    for entry in node.info.inputs:
        if not entry.is_widget:
            continue
        value = node.inputs[entry.name]
        yield entry.default if isinstance(value, Wire) else value
        if entry.has_control:
            # A seed that a request decides must stay: another one would run the node anew.
            yield "fixed" if isinstance(node.inputs.get("request"), Wire) else "randomize"


def _note(recipe: Recipe, number: int, place: list[int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": place,
        "size": list(_NOTE_SIZE),
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": recipe.title,
        "properties": {},
        "widgets_values": [recipe.note],
        "color": "#432",
        "bgcolor": "#653",
    }


def _height(node: Node) -> int:
    """Return how tall the editor draws a node, below its title."""
    widgets = [entry for entry in node.info.inputs if entry.is_widget]
    sockets = len(node.info.inputs) - len(widgets)
    height = max(sockets, len(node.info.outputs)) * _SOCKET + _MARGIN
    for entry in widgets:
        height += _TEXT if entry.options.get("multiline") else _ROW
        height += _ROW if entry.has_control else 0
    return height + (_WIDGETS_MARGIN if widgets else 0)
