"""How the shipped workflows look in the editor: nothing overlaps, everything flows to the right."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.tools.layout import room

FOLDER = Path(__file__).parent.parent.parent / "workflows"


def boxes(workflow: dict[str, Any]) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of every node, its title included."""
    found: list[tuple[float, float, float, float]] = []
    for node in workflow["nodes"]:
        (x, y), (w, h) = node["pos"], node["size"]
        found.append((x, y - 30, x + w, y + h + room(node["type"])))
    return found


def apart(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    return one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_nothing_overlaps(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    frames = [
        (x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in workflow["groups"])
    ]
    for things in (boxes(workflow), frames):
        assert all(apart(*pair) for pair in itertools.combinations(things, 2))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_wire_goes_right_and_under_no_node(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    bodies = dict(zip(nodes, boxes(workflow), strict=True))
    for number, source, slot, target, entry, _ in workflow["links"]:
        start = (
            nodes[source]["pos"][0] + nodes[source]["size"][0],
            nodes[source]["pos"][1] + 20 * slot + 14,
        )
        end = (nodes[target]["pos"][0], slot_height(nodes[target], entry))
        stops = [start, *bends(workflow, number), end]
        assert all(left[0] < right[0] for left, right in itertools.pairwise(stops)), number
        others = [box for key, box in bodies.items() if key not in (source, target)]
        for x, y in curves(stops):
            under = [box for box in others if box[0] < x < box[2] and box[1] < y < box[3]]
            assert not under, (nodes[source]["type"], slot, nodes[target]["type"], (x, y))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_points_and_wires_name_each_other(path: Path) -> None:
    workflow = json.loads(path.read_text(encoding="utf-8"))
    through: dict[int, list[int]] = {point["id"]: [] for point in workflow["extra"]["reroutes"]}
    for wire in (link[0] for link in workflow["links"]):
        for point in chain(workflow, wire):
            through[point["id"]].append(wire)
    for point in workflow["extra"]["reroutes"]:
        assert sorted(point["linkIds"]) == sorted(through[point["id"]]) != []


def test_the_wires_of_the_request_share_one_way() -> None:
    workflow = json.loads((FOLDER / "text_to_image.json").read_text(encoding="utf-8"))
    form = next(node for node in workflow["nodes"] if node["type"] == "FluxHotswapInputs")
    wires = form["outputs"][0]["links"]
    assert len(wires) == 8
    heights = {y for wire in wires for _, y in bends(workflow, wire)}
    assert len(heights) == 1
    assert sum(not bends(workflow, wire) for wire in wires) == 1, "the Loader's goes straight"


def chain(workflow: dict[str, Any], wire: int) -> list[dict[str, Any]]:
    """Return the reroute points of a wire, from its start on."""
    points = {point["id"]: point for point in workflow["extra"]["reroutes"]}
    last = {entry["id"]: entry["parentId"] for entry in workflow["extra"]["linkExtensions"]}
    found: list[dict[str, Any]] = []
    number = last.get(wire)
    while number is not None:
        found.insert(0, points[number])
        number = points[number].get("parentId")
    return found


def bends(workflow: dict[str, Any], wire: int) -> list[tuple[float, float]]:
    """Return where a wire's reroute points are."""
    return [tuple(point["pos"]) for point in chain(workflow, wire)]


def slot_height(node: dict[str, Any], slot: int) -> float:
    """Return about how high the editor draws an input."""
    sockets = sum("widget" not in entry for entry in node["inputs"])
    if slot < sockets:
        return node["pos"][1] + 20 * slot + 14
    return node["pos"][1] + 20 * max(sockets, len(node["outputs"])) + 24 * (slot - sockets) + 18


def curves(stops: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points of a wire, about as the editor bends it: less behind a reroute point."""
    for index, (start, end) in enumerate(itertools.pairwise(stops)):
        reach = math.dist(start, end) / 4
        first = min(reach, 80) if index else reach
        last = reach if index == len(stops) - 2 else min(reach, 80)
        x0, x1, x2, x3 = start[0], start[0] + first, end[0] - last, end[0]
        y0, y1, y2, y3 = start[1], start[1], end[1], end[1]
        for step in range(41):
            t = step / 40
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            yield a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
