"""Where the editor shows each node of a shipped workflow, and which way the long wires take.

Everything flows to the right. The form's wires fan out: what stands further right stands higher, so
no wire of the form runs below another node. Those that go to the far end take a lane of their own
below or above everything, bent by the editor's reroute points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .graph import Graph, Node

FORM_WIDTH: Final = 400
NODE_WIDTH: Final = 320
PITCH: Final = 430
FIRST: Final = FORM_WIDTH + 220
"""Where the column behind the form begins."""

_TITLE: Final = 30
_MARGIN: Final = 30
_GROUP_TITLE: Final = 40
_COLOURS: Final = {"Request": "#b06634", "Picture": "#b06634", "Result": "#8A8"}
_COLOUR: Final = "#3f789e"


def column(number: float) -> int:
    """Return where a column begins; the form stands in column 0."""
    return 0 if number == 0 else round(FIRST + (number - 1) * PITCH)


@dataclass(frozen=True)
class Spot:
    """Where a node stands.

    Attributes:
        column: from the left; the nodes behind the sampler move one on if there is one more.
        top: of the node's body, in pixels.
        group: the title of the group around it.
        moves: whether it moves on.
    """

    column: float
    top: int
    group: str
    moves: bool = False


SPOTS: Final[Mapping[str, tuple[Spot, ...]]] = {
    "LoadImage": (Spot(-1, 0, "Picture"),),
    "FluxHotswapInputs": (Spot(0, 0, "Request"),),
    "FluxHotswapLoader": (Spot(1, 1010, "Models"),),
    "DualCLIPLoader": (Spot(1, 1250, "Models"),),
    "FluxHotswapLora": (Spot(2, 920, "LoRAs"), Spot(3, 800, "LoRAs")),
    "VAELoader": (Spot(2, -160, "Size and noise levels"),),
    "FluxHotswapLatent": (Spot(3, -60, "Size and noise levels"),),
    "FluxHotswapSchedule": (Spot(4, 270, "Size and noise levels"),),
    "FluxHotswapPrompt": (Spot(4, 590, "Prompt"),),
    "BasicGuider": (Spot(5, 640, "Sampling"),),
    "KSamplerSelect": (Spot(5, 770, "Sampling"),),
    "FluxHotswapNoise": (Spot(5, 910, "Sampling"),),
    "SamplerCustomAdvanced": (Spot(6, 480, "Sampling"),),
    "LatentCompositeMasked": (Spot(7, 480, "Result"),),
    "VAEDecode": (Spot(7, 480, "Result", moves=True),),
    "FluxHotswapSafety": (Spot(8, 480, "Result", moves=True),),
    "FluxHotswapSave": (Spot(9, 480, "Result", moves=True),),
}

LANES: Final[Mapping[tuple[str, str], int]] = {
    ("FluxHotswapNoise", "seed"): 1440,
    ("FluxHotswapSafety", "disable_safety_checker"): 1465,
    ("FluxHotswapSave", "output_format"): 1490,
    ("FluxHotswapSave", "output_quality"): 1515,
    ("FluxHotswapSave", "parameters"): 1540,
    ("BasicGuider", "model"): 840,
    ("SamplerCustomAdvanced", "latent_image"): -110,
    ("LatentCompositeMasked", "destination"): -135,
    ("LatentCompositeMasked", "mask"): -160,
    ("VAEDecode", "vae"): -185,
}
"""How high the wires into these inputs run between their two ends."""

ROOM: Final[Mapping[str, int]] = {
    "LoadImage": 280,
    "FluxHotswapInputs": 120,
    "FluxHotswapLora": 90,
    "FluxHotswapSave": 380,
}
"""How much a node may grow: by a picture, or by the lines that our scripts show."""

_BESIDE: Final = 50
"""How far from a node a lane begins and ends."""


@dataclass(frozen=True)
class Placed:
    """A node with its place: left, top, width and height of its body."""

    node: Node
    group: str
    left: int
    top: int
    width: int
    height: int


def place(graph: Graph, heights: Mapping[int, int]) -> dict[int, Placed]:
    """Return each node's place by its id.

    Raises:
        ValueError: there is no spot for a node.
    """
    left = {name: list(spots) for name, spots in SPOTS.items()}
    is_longer = any(node.info.name == "LatentCompositeMasked" for node in graph.nodes)
    placed: dict[int, Placed] = {}
    for node in graph.nodes:
        if not left.get(node.info.name):
            raise ValueError(f"there is no spot for {node.info.name}")
        spot = left[node.info.name].pop(0)
        number = spot.column + (1 if spot.moves and is_longer else 0)
        width = FORM_WIDTH if spot.column == 0 else NODE_WIDTH
        # A node before the form is as far from it as the next one behind it.
        start = column(number) if number >= 0 else -(NODE_WIDTH + FIRST - FORM_WIDTH)
        placed[node.id] = Placed(node, spot.group, start, spot.top, width, heights[node.id])
    return placed


def groups(placed: Mapping[int, Placed]) -> list[dict[str, Any]]:
    """Return the editor's groups: a frame around the nodes of each title."""
    titles = dict.fromkeys(entry.group for entry in placed.values())
    return [
        {
            "id": number,
            "title": title,
            "bounding": _frame([entry for entry in placed.values() if entry.group == title]),
            "color": _COLOURS.get(title, _COLOUR),
            "font_size": 24,
            "flags": {},
        }
        for number, title in enumerate(titles, 1)
    ]


def lanes(
    placed: Mapping[int, Placed], links: list[list[Any]], names: Mapping[int, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the reroute points of the wires that take a lane, and which wire takes which.

    Args:
        placed: the nodes.
        links: as in a workflow file.
        names: of the input that each link leads to, by the link's id.
    """
    points: list[dict[str, Any]] = []
    taken: list[dict[str, Any]] = []
    for number, source, _, target, *_ in links:
        height = LANES.get((placed[target].node.info.name, names[number]))
        if height is None:
            continue
        begin, end = placed[source], placed[target]
        for left in (begin.left + begin.width + _BESIDE, end.left - _BESIDE):
            point: dict[str, Any] = {"id": len(points) + 1, "pos": [left, height]}
            if points and points[-1]["linkIds"] == [number]:
                point["parentId"] = points[-1]["id"]
            points.append(point | {"linkIds": [number]})
        taken.append({"id": number, "parentId": len(points)})
    return points, taken


def _frame(members: list[Placed]) -> list[int]:
    left = min(entry.left for entry in members) - _MARGIN
    top = min(entry.top for entry in members) - _TITLE - _GROUP_TITLE
    right = max(entry.left + entry.width for entry in members) + _MARGIN
    bottoms = (entry.top + entry.height + ROOM.get(entry.node.info.name, 0) for entry in members)
    bottom = max(bottoms) + _MARGIN
    return [left, top, right - left, bottom - top]
