"""A graph as a file of the graph editor: a few nodes, and one subgraph that runs the request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from ..prediction.spec import FIELDS
from .graph import Graph, Node, Wire
from .layout import ENTRY, HOST, NOTE, SPOTS, Spot, buses, exit_spot, groups, place, view
from .recipes import FORM, MODELS, PICTURE, SAVE, Recipe
from .subgraph import ENTRY_SIDE, EXIT_SIDE, Link, Port, Split, split

PACK_ID: Final = "flux-hotswap"
CORE_ID: Final = "comfy-core"
RUN_TITLE: Final = "FLUX Hotswap Run"

_SOCKET: Final = 20
_ROW: Final = 24
_TEXT: Final = 104
_MARGIN: Final = 6
_WIDGETS_MARGIN: Final = 8


def to_ui(graph: Graph, recipe: Recipe) -> dict[str, Any]:
    """Return graph as the editor's workflow file."""
    parts = split(graph, SPOTS.keys())
    run = _run(parts, recipe.name, RUN_TITLE)
    nodes = [_node(node, SPOTS[node.info.name], parts.outer_links) for node in parts.outer]
    note_id = parts.host + 1
    nodes += [_host(parts, run, HOST), _note(recipe, note_id)]
    shown = [*(SPOTS[node.info.name] for node in parts.outer), HOST, NOTE]
    return {
        "id": _uuid(recipe.name),
        "revision": 0,
        "last_node_id": note_id,
        "last_link_id": len(parts.outer_links) + len(parts.inner_links),
        "nodes": nodes,
        "links": [list(asdict(link).values()) for link in parts.outer_links],
        "groups": [],
        "definitions": {"subgraphs": [run]},
        "config": {},
        "extra": {"title": recipe.title, "ds": view(shown), "linearData": _app(graph)},
        "version": 0.4,
    }


def to_blueprint(graph: Graph, name: str, about: str) -> dict[str, Any]:
    """Return the subgraph of a graph as a file that the editor offers like a node.

    Args:
        graph: a workflow's.
        name: what the editor calls it.
        about: what it does, for the editor's search.
    """
    parts = split(graph, SPOTS.keys())
    run = _run(parts, name, name) | {"description": about, "category": PACK_ID}
    alone = _host(parts, run, HOST)
    for slot in alone["inputs"]:
        slot["link"] = None
    for slot in alone["outputs"]:
        slot["links"] = None
    return {
        "id": _uuid(name),
        "revision": 0,
        "last_node_id": parts.host,
        "last_link_id": len(parts.outer_links) + len(parts.inner_links),
        "nodes": [alone],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [run]},
        "config": {},
        "extra": {"BlueprintDescription": about},
        "version": 0.4,
    }


# --- the subgraph ---


def _run(parts: Split, key: str, name: str) -> dict[str, Any]:
    """Return the definition of the subgraph.

    Args:
        parts: the graph.
        key: what its ids are made from.
        name: its name.
    """
    links = parts.inner_links
    placed = place(parts.inner, {node.id: _height(node) for node in parts.inner})
    points, last = buses(placed, links)
    return {
        "id": _uuid(f"{key}/run"),
        "version": 1,
        "state": {
            "lastGroupId": len(groups(placed)),
            "lastNodeId": parts.host,
            "lastLinkId": len(parts.outer_links) + len(links),
            "lastRerouteId": len(points),
        },
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": ENTRY_SIDE, "bounding": _bounding(ENTRY)},
        "outputNode": {"id": EXIT_SIDE, "bounding": _bounding(exit_spot(placed))},
        "inputs": [
            _port(port, f"{key}/in/{number}", [link.id for link in links if _enters(link, number)])
            for number, port in enumerate(parts.entries)
        ],
        "outputs": [
            _port(port, f"{key}/out/{number}", [link.id for link in links if _exits(link, number)])
            for number, port in enumerate(parts.exits)
        ],
        "widgets": [],
        "nodes": [_node(node, placed[node.id].spot, links) for node in parts.inner],
        "groups": groups(placed),
        "links": [_inner_link(link, last) for link in links],
        "reroutes": points,
        "extra": {},
    }


def _enters(link: Link, port: int) -> bool:
    return (link.origin, link.origin_slot) == (ENTRY_SIDE, port)


def _exits(link: Link, port: int) -> bool:
    return (link.target, link.target_slot) == (EXIT_SIDE, port)


def _port(port: Port, key: str, links: list[int]) -> dict[str, Any]:
    return {"id": _uuid(key), "name": port.name, "type": port.wire.type, "linkIds": links}


def _inner_link(link: Link, last: dict[int, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": link.id,
        "origin_id": link.origin,
        "origin_slot": link.origin_slot,
        "target_id": link.target,
        "target_slot": link.target_slot,
        "type": link.type,
    }
    return shown | ({"parentId": last[link.id]} if link.id in last else {})


def _host(parts: Split, run: dict[str, Any], spot: Spot) -> dict[str, Any]:
    """Return the node that stands for the subgraph."""
    inputs = [
        {"name": port.name, "type": port.wire.type, "link": _into(parts, number)}
        for number, port in enumerate(parts.entries)
    ]
    outputs = [
        {
            "name": port.name,
            "type": port.wire.type,
            "links": _out_of(parts.outer_links, parts.host, number),
        }
        for number, port in enumerate(parts.exits)
    ]
    properties: dict[str, Any] = {"proxyWidgets": [], "cnr_id": PACK_ID}
    return _entry(parts.host, run["id"], spot) | {
        "inputs": inputs,
        "outputs": outputs,
        "title": run["name"],
        "properties": properties,
        "widgets_values": [],
    }


def _into(parts: Split, port: int) -> int:
    return next(
        link.id
        for link in parts.outer_links
        if (link.target, link.target_slot) == (parts.host, port)
    )


# --- nodes ---


def _entry(number: int, kind: str, spot: Spot) -> dict[str, Any]:
    """Return what every node of the editor has."""
    return {
        "id": number,
        "type": kind,
        "pos": [spot.left, spot.top],
        "size": [spot.width, spot.height],
        "flags": {},
        "order": number - 1,
        "mode": 0,
    }


def _node(node: Node, spot: Spot, links: Sequence[Link]) -> dict[str, Any]:
    into = {link.target_slot: link.id for link in links if link.target == node.id}
    inputs: list[dict[str, Any]] = []
    for slot, entry in enumerate(node.slots):
        shown: dict[str, Any] = {"name": entry.name, "type": entry.type, "link": into.get(slot)}
        if entry.is_widget:
            shown["widget"] = {"name": entry.name}
        inputs.append(shown)
    outputs = [
        {"name": name, "type": kind, "links": _out_of(links, node.id, index)}
        for index, (name, kind) in enumerate(node.info.outputs)
    ]
    is_ours = node.info.name.startswith("FluxHotswap")
    properties: dict[str, Any] = {
        "Node name for S&R": node.info.name,
        "cnr_id": PACK_ID if is_ours else CORE_ID,
    }
    if node.info.name in MODELS:
        properties["models"] = [vars(model) for model in MODELS[node.info.name]]
    return _entry(node.id, node.info.name, spot) | {
        "inputs": inputs,
        "outputs": outputs,
        "title": node.info.title,
        "properties": properties,
        "widgets_values": list(_values(node)),
    }


def _out_of(links: Sequence[Link], origin: int, slot: int) -> list[int] | None:
    """Return the ids of the links that start at an output."""
    found = [link.id for link in links if (link.origin, link.origin_slot) == (origin, slot)]
    return found or None


def _values(node: Node) -> Iterator[Any]:
    if node.info.name == PICTURE:
        return
    for entry in node.info.inputs:
        if not entry.is_widget:
            continue
        value = node.inputs[entry.name]
        yield entry.default if isinstance(value, Wire) else value
        if entry.has_control:
            # A seed that a request decides must stay: another one would run the node anew.
            yield "fixed" if isinstance(node.inputs.get("request"), Wire) else "randomize"


def _note(recipe: Recipe, number: int) -> dict[str, Any]:
    return _entry(number, "MarkdownNote", NOTE) | {
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


# --- the app ---


def _app(graph: Graph) -> dict[str, Any]:
    """Return which widgets and which result the newest editor shows when a graph is an app.

    They come in the schema's order. Where a picture is connected, its loader's choice of files,
    with the mask that is painted on it, stands for the two fields.
    """
    (form,) = (node for node in graph.nodes if node.info.name == FORM)
    (save,) = (node for node in graph.nodes if node.info.name == SAVE)
    loaders = [node for node in graph.nodes if node.info.name == PICTURE]
    fields = [(str(form.id), field.name) for field in FIELDS]
    if loaders:
        pictures = {"image": (str(loaders[0].id), "image"), "mask": None}
        fields = [pictures.get(name, (number, name)) for number, name in fields]
    return {"inputs": [list(field) for field in fields if field], "outputs": [str(save.id)]}


def _bounding(spot: Spot) -> list[int]:
    return [spot.left, spot.top, spot.width, spot.height]


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_ID}/{name}"))
