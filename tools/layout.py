"""Where the editor shows each node of a shipped workflow, and which way the long wires take.

Everything flows to the right, in columns. Two outputs feed nodes all over the graph: the form's
request and the VAE. Their wires run along above everything, like a bus, and each node takes its
own down beside its column. The editor's reroute points bend them; one point serves many wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .graph import Graph, Node

GAP: Final = 90
"""Between two columns, where nothing else is said."""

_TITLE: Final = 30
_MARGIN: Final = 30
_GROUP_TITLE: Final = 40
_COLOURS: Final = {"Request": "#b06634", "Picture": "#b06634", "Result": "#8A8"}
_COLOUR: Final = "#3f789e"


@dataclass(frozen=True)
class Column:
    """Nodes that stand one above the other.

    Attributes:
        group: the title of the group around it; columns beside each other share theirs.
        width: of the nodes.
        tops: how high the body of each node class begins.
        gap: to the column before it.
    """

    group: str
    width: int
    tops: Mapping[str, int]
    gap: int = GAP


COLUMNS: Final = (
    Column("Picture", 300, {"LoadImage": 0}),
    Column("Request", 400, {"FluxHotswapInputs": 0}),
    Column("Models", 300, {"VAELoader": 0, "FluxHotswapLoader": 120, "DualCLIPLoader": 400}),
    Column("Models", 280, {"FluxHotswapLora": 120}),
    Column("Sampling", 280, {"FluxHotswapPrompt": 190}),
    Column(
        "Sampling",
        270,
        {
            "KSamplerSelect": 0,
            "BasicGuider": 120,
            "FluxHotswapNoise": 240,
            "FluxHotswapSchedule": 440,
            "FluxHotswapLatent": 730,
        },
        gap=125,
    ),
    Column("Sampling", 230, {"SamplerCustomAdvanced": 120}),
    Column("Result", 230, {"LatentCompositeMasked": 300}),
    Column("Result", 160, {"VAEDecode": 120}),
    Column("Result", 270, {"FluxHotswapSafety": 120}),
    Column("Result", 320, {"FluxHotswapSave": 120}),
)
"""From left to right; one without nodes is left out."""

ROOM: Final[Mapping[str, int]] = {
    "LoadImage": 280,
    "FluxHotswapInputs": 170,
    "FluxHotswapLora": 140,
    "FluxHotswapSave": 420,
}
"""How much a node may grow: by a picture, by the lines that our scripts show, in Nodes 2.0."""

_ROOM: Final = 30
"""The same for all others."""


@dataclass(frozen=True)
class Bus:
    """The way of an output's wires to all columns but the next.

    Attributes:
        height: how high it runs.
        beside: how far from a column a wire leaves it.
    """

    height: int
    beside: int


BUSES: Final[Mapping[tuple[str, str], Bus]] = {
    ("FluxHotswapInputs", "request"): Bus(-95, 55),
    ("VAELoader", "VAE"): Bus(-125, 30),
}
"""By the node class and the output."""

NOTE_PLACE: Final = ("DualCLIPLoader", 270)
"""Below which node the note on the workflow stands, and how far."""


@dataclass(frozen=True)
class Placed:
    """A node with its place: left, top, width and height of its body."""

    node: Node
    column: Column
    left: int
    top: int
    width: int
    height: int


def room(name: str) -> int:
    """Return how much a node of a class may grow."""
    return ROOM.get(name, _ROOM)


def place(graph: Graph, heights: Mapping[int, int]) -> dict[int, Placed]:
    """Return each node's place by its id.

    Raises:
        ValueError: there is no spot for a node.
    """
    placed: dict[int, Placed] = {}
    end = 0
    for column in COLUMNS:
        here = [node for node in graph.nodes if node.info.name in column.tops]
        left = end + (column.gap if placed else 0)
        for node in here:
            top = column.tops[node.info.name]
            placed[node.id] = Placed(node, column, left, top, column.width, heights[node.id])
        end = left + column.width if here else end
    names = [entry.node.info.name for entry in placed.values()]
    for node in graph.nodes:
        if names.count(node.info.name) != 1:
            raise ValueError(f"there is no spot for {node.info.name}")
    return placed


def groups(placed: Mapping[int, Placed]) -> list[dict[str, Any]]:
    """Return the editor's groups: a frame around the nodes of each title."""
    titles = dict.fromkeys(entry.column.group for entry in placed.values())
    return [
        {
            "id": number,
            "title": title,
            "bounding": _frame([e for e in placed.values() if e.column.group == title]),
            "color": _COLOURS.get(title, _COLOUR),
            "font_size": 24,
            "flags": {},
        }
        for number, title in enumerate(titles, 1)
    ]


def note_place(placed: Mapping[int, Placed]) -> list[int]:
    """Return left and top of the note on the workflow."""
    name, below = NOTE_PLACE
    above = next(entry for entry in placed.values() if entry.node.info.name == name)
    return [above.left, above.top + below]


def buses(
    placed: Mapping[int, Placed], links: list[list[Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the reroute points of the wires that take a bus, and which wire leaves it where.

    Args:
        placed: the nodes.
        links: as in a workflow file.
    """
    points: list[dict[str, Any]] = []
    taken: list[dict[str, Any]] = []
    for entry in placed.values():
        for slot, (output, _type) in enumerate(entry.node.info.outputs):
            bus = BUSES.get((entry.node.info.name, output))
            end = entry.left + entry.width
            goals = {
                int(link[0]): placed[link[3]].left
                for link in links
                if link[1:3] == [entry.node.id, slot] and placed[link[3]].left > end + GAP
            }
            if bus is not None and goals:
                _lay(bus, end, goals, points, taken)
    return points, taken


def _lay(
    bus: Bus,
    start: int,
    goals: Mapping[int, int],
    points: list[dict[str, Any]],
    taken: list[dict[str, Any]],
) -> None:
    """Add the points of one bus.

    Args:
        bus: where it runs.
        start: where the node ends that feeds it.
        goals: the left end of the node that each wire leads to, by the wire's id.
        points: to add to.
        taken: to add to.
    """
    parent: int | None = None
    for left in [start + 2 * bus.beside, *sorted(set(goals.values()))]:
        number = len(points) + 1
        point: dict[str, Any] = {"id": number, "pos": [left - bus.beside, bus.height]}
        if parent is not None:
            point["parentId"] = parent
        point["linkIds"] = [wire for wire, goal in goals.items() if goal >= left]
        points.append(point)
        taken += [{"id": wire, "parentId": number} for wire, goal in goals.items() if goal == left]
        parent = number


def _frame(members: list[Placed]) -> list[int]:
    left = min(entry.left for entry in members) - _MARGIN
    top = min(entry.top for entry in members) - _TITLE - _GROUP_TITLE
    right = max(entry.left + entry.width for entry in members) + _MARGIN
    bottom = max(entry.top + entry.height + room(entry.node.info.name) for entry in members)
    return [left, top, right - left, bottom + _MARGIN - top]
