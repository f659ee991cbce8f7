"""Where the editor shows each node of a shipped workflow, and which way the long wires take.

Outside stand a few nodes at fixed spots, so that all of it can be read without zooming. Inside the
subgraph everything flows to the right, in columns. Two outputs feed nodes all over it: the request
that comes in and the VAE. Their wires run along above everything, like a bus, and each node takes
its own down beside its column. The editor's reroute points bend them; one point serves many wires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .graph import Node
from .subgraph import ENTRY_SIDE, Link

GAP: Final = 90
"""Between two columns, where nothing else is said."""

_TITLE: Final = 30
_MARGIN: Final = 30
_GROUP_TITLE: Final = 40
_COLOURS: Final = {"Result": "#8A8"}
_COLOUR: Final = "#3f789e"

# --- outside ---


@dataclass(frozen=True)
class Spot:
    """Where a node stands: left, top, width and height of its body."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Where it ends."""
        return self.left + self.width


HOST: Final = Spot(445, 100, 225, 90)
"""Of the subgraph. Low enough for the wire from the form to the Save node to pass above it."""

NOTE: Final = Spot(445, 300, 225, 420)
"""Of the note on the workflow."""

SPOTS: Final[Mapping[str, Spot]] = {
    "LoadImage": Spot(-300, 0, 240, 340),
    "FluxHotswapInputs": Spot(0, 0, 360, 780),
    "FluxHotswapSave": Spot(725, 0, 360, 660),
}
"""Of every node class that stands outside, with room for what the nodes show at run time."""


def view(spots: Sequence[Spot]) -> dict[str, Any]:
    """Return scale and offset that show everything on a page of 1440 x 900.

    Nodes 2.0 of editor 1.32 draws all larger; the newest editor finds a scale and offset itself.
    """
    left = min(spot.left for spot in spots)
    return {"scale": 0.76, "offset": [170 - left, 200]}


# --- inside ---


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
)
"""From left to right; one without nodes is left out."""

ROOM: Final[Mapping[str, int]] = {"FluxHotswapLora": 140}
"""How much a node may grow: by the lines that our scripts show, in Nodes 2.0."""

_ROOM: Final = 30
"""The same for all others."""

ENTRY: Final = Spot(-GAP - 140, -6, 140, 60)
"""Of the side of the border where wires come in."""

_EXIT: Final = (120, 114, 60)
"""Width, top and height of the other side; it stands behind the last column."""


@dataclass(frozen=True)
class Bus:
    """The way of an output's wires to all columns but the next.

    Attributes:
        height: how high it runs.
        beside: how far from a column a wire leaves it.
    """

    height: int
    beside: int


BUSES: Final[Mapping[str, Bus]] = {"HOTSWAP_REQUEST": Bus(-120, 55), "VAE": Bus(-150, 30)}
"""By the type of the wire."""


@dataclass(frozen=True)
class Placed:
    """A node inside the subgraph with its place."""

    node: Node
    column: Column
    spot: Spot


def room(name: str) -> int:
    """Return how much a node of a class may grow."""
    return 0 if name in SPOTS else ROOM.get(name, _ROOM)


def place(nodes: Sequence[Node], heights: Mapping[int, int]) -> dict[int, Placed]:
    """Return the place of each node inside the subgraph by its id.

    Raises:
        ValueError: there is no spot for a node.
    """
    placed: dict[int, Placed] = {}
    end = 0
    for column in COLUMNS:
        here = [node for node in nodes if node.info.name in column.tops]
        left = end + (column.gap if placed else 0)
        for node in here:
            spot = Spot(left, column.tops[node.info.name], column.width, heights[node.id])
            placed[node.id] = Placed(node, column, spot)
        end = left + column.width if here else end
    names = [entry.node.info.name for entry in placed.values()]
    for node in nodes:
        if names.count(node.info.name) != 1:
            raise ValueError(f"there is no spot for {node.info.name}")
    return placed


def exit_spot(placed: Mapping[int, Placed]) -> Spot:
    """Return where the side of the border stands where wires go out."""
    width, top, height = _EXIT
    return Spot(max(entry.spot.right for entry in placed.values()) + GAP, top, width, height)


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


def buses(
    placed: Mapping[int, Placed], links: Sequence[Link]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Return the reroute points of the wires that take a bus, and which wire leaves it where.

    Args:
        placed: the nodes.
        links: between them and the border.

    Returns:
        The points, and the last point of each wire by the wire's id.
    """
    points: list[dict[str, Any]] = []
    last: dict[int, int] = {}
    for origin in dict.fromkeys((link.origin, link.origin_slot) for link in links):
        wires = [link for link in links if (link.origin, link.origin_slot) == origin]
        bus = BUSES.get(wires[0].type)
        end = (ENTRY if origin[0] == ENTRY_SIDE else placed[origin[0]].spot).right
        goals = {
            link.id: placed[link.target].spot.left
            for link in wires
            if link.target in placed and placed[link.target].spot.left > end + GAP
        }
        if bus is not None and goals:
            _lay(bus, end, goals, points, last)
    return points, last


def _lay(
    bus: Bus,
    start: int,
    goals: Mapping[int, int],
    points: list[dict[str, Any]],
    last: dict[int, int],
) -> None:
    """Add the points of one bus.

    Args:
        bus: where it runs.
        start: where the node ends that feeds it.
        goals: the left end of the node that each wire leads to, by the wire's id.
        points: to add to.
        last: to add to.
    """
    parent: int | None = None
    for left in [start + 2 * bus.beside, *sorted(set(goals.values()))]:
        number = len(points) + 1
        point: dict[str, Any] = {"id": number, "pos": [left - bus.beside, bus.height]}
        if parent is not None:
            point["parentId"] = parent
        point["linkIds"] = [wire for wire, goal in goals.items() if goal >= left]
        points.append(point)
        last.update({wire: number for wire, goal in goals.items() if goal == left})
        parent = number


def _frame(members: list[Placed]) -> list[int]:
    left = min(entry.spot.left for entry in members) - _MARGIN
    top = min(entry.spot.top for entry in members) - _TITLE - _GROUP_TITLE
    right = max(entry.spot.right for entry in members) + _MARGIN
    bottom = max(
        entry.spot.top + entry.spot.height + room(entry.node.info.name) for entry in members
    )
    return [left, top, right - left, bottom + _MARGIN - top]
