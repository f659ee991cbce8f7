"""How the shipped workflows look in the editor: nothing overlaps, everything flows to the right."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.prediction.spec import FIELDS
from flux_hotswap.tools.layout import room
from flux_hotswap.tools.subgraph import ENTRY_SIDE, EXIT_SIDE

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """What the editor shows at a time: a workflow, or the inside of its subgraph.

    Attributes:
        nodes: by id, as in the file.
        links: by id: from node, from slot, to node, to slot.
        frames: of the groups.
        points: the reroute points by id.
        last: the last of them on the way of each wire that has some, by the wire's id.
        border: by its id, the place of each side where wires come in or go out.
    """

    nodes: dict[int, dict[str, Any]]
    links: dict[int, tuple[int, int, int, int]]
    frames: list[Box]
    points: dict[int, dict[str, Any]]
    last: dict[int, int]
    border: dict[int, Box]


def outside(workflow: dict[str, Any]) -> Part:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: tuple(link[1:5]) for link in workflow["links"]}
    assert workflow["groups"] == []
    return Part(nodes, links, [], {}, {}, {})


def inside(workflow: dict[str, Any]) -> Part:
    (run,) = workflow["definitions"]["subgraphs"]
    ends = ("origin_id", "origin_slot", "target_id", "target_slot")
    border = {
        run[side]["id"]: corners(run[side]["bounding"]) for side in ("inputNode", "outputNode")
    }
    return Part(
        {node["id"]: node for node in run["nodes"]},
        {link["id"]: tuple(link[end] for end in ends) for link in run["links"]},
        [corners(group["bounding"]) for group in run["groups"]],
        {point["id"]: point for point in run["reroutes"]},
        {link["id"]: link["parentId"] for link in run["links"] if "parentId" in link},
        border,
    )


def corners(bounding: Sequence[float]) -> Box:
    x, y, w, h = bounding
    return x, y, x + w, y + h


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


PARTS = {
    **{f"{path.stem} outside": outside(read(path)) for path in TEMPLATES},
    **{f"{path.stem} inside": inside(read(path)) for path in [*TEMPLATES, *BLUEPRINTS]},
}
each_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def boxes(part: Part) -> dict[int, Box]:
    """Return left, top, right and bottom of every node, its title included, and of the border."""
    found = dict(part.border)
    for number, node in part.nodes.items():
        left, top, right, bottom = corners([*node["pos"], *node["size"]])
        found[number] = left, top - 30, right, bottom + room(node["type"])
    return found


def apart(one: Box, two: Box) -> bool:
    return one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


@each_part
def test_nothing_overlaps(part: Part) -> None:
    for things in (list(boxes(part).values()), part.frames):
        assert all(apart(*pair) for pair in itertools.combinations(things, 2))


@each_part
def test_every_wire_goes_right_and_under_no_node(part: Part) -> None:
    bodies = boxes(part)
    for number, (source, slot, target, entry) in part.links.items():
        stops = [start(part, source, slot), *bends(part, number), end(part, target, entry)]
        assert all(left[0] < right[0] for left, right in itertools.pairwise(stops)), number
        others = [box for key, box in bodies.items() if key not in (source, target)]
        for x, y in curves(stops):
            under = [box for box in others if box[0] < x < box[2] and box[1] < y < box[3]]
            assert not under, (source, slot, target, (x, y))


@each_part
def test_points_and_wires_name_each_other(part: Part) -> None:
    through: dict[int, list[int]] = {number: [] for number in part.points}
    for wire in part.links:
        for point in chain(part, wire):
            through[point["id"]].append(wire)
    for number, point in part.points.items():
        assert sorted(point["linkIds"]) == sorted(through[number]) != []


@pytest.mark.parametrize("path", [*TEMPLATES, *BLUEPRINTS], ids=lambda path: path.stem)
def test_the_wires_of_the_request_share_one_way(path: Path) -> None:
    part = inside(read(path))
    wires = [number for number, (source, *_) in part.links.items() if source == ENTRY_SIDE]
    assert len(wires) == 7
    heights = {y for wire in wires for _, y in bends(part, wire)}
    assert len(heights) == 1
    assert sum(not bends(part, wire) for wire in wires) == 1, "the Loader's goes straight"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_outside_are_form_picture_run_and_save(path: Path) -> None:
    workflow = read(path)
    (run,) = workflow["definitions"]["subgraphs"]
    titles = [node["title"] for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    pictures = ["Load Image"] if path.stem in ("image_to_image", "inpaint") else []
    wanted = [*pictures, "FLUX Hotswap Inputs", "FLUX Hotswap Save", "FLUX Hotswap Run"]
    assert titles == wanted
    numbers = [node["id"] for node in [*workflow["nodes"], *run["nodes"]]]
    assert len(set(numbers)) == len(numbers), "the editor's export is the prompt by these ids"
    assert len(numbers) > 14


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_workflow_is_an_app_with_the_fields_in_order(path: Path) -> None:
    workflow = read(path)
    by_title = {node["title"]: str(node["id"]) for node in workflow["nodes"]}
    form, picture = by_title["FLUX Hotswap Inputs"], by_title.get("Load Image")
    wanted = [[form, field.name] for field in FIELDS]
    if picture:  # with the mask that is painted on it
        wanted[1:3] = [[picture, "image"]]
    assert [name for _, name in wanted[:2]] == ["prompt", "image"]
    app = workflow["extra"]["linearData"]
    assert app == {"inputs": wanted, "outputs": [by_title["FLUX Hotswap Save"]]}
    assert "linearMode" not in workflow["extra"], "it opens as a graph"


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_alone(path: Path) -> None:
    text = path.read_bytes()
    assert text.isascii(), "ComfyUI 0.3.75 opens it in the encoding of the system"
    workflow = json.loads(text)
    (node,), (run,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert (node["type"], node["title"]) == (run["id"], path.stem)
    assert (run["name"], workflow["links"]) == (path.stem, [])
    for word in ("hotswap", "replicate", "lora"):
        assert 0 <= path.stem.lower().find(word) < 30, "the editors' search looks no further"


def chain(part: Part, wire: int) -> list[dict[str, Any]]:
    """Return the reroute points of a wire, from its start on."""
    found: list[dict[str, Any]] = []
    number = part.last.get(wire)
    while number is not None:
        found.insert(0, part.points[number])
        number = part.points[number].get("parentId")
    return found


def bends(part: Part, wire: int) -> list[Point]:
    """Return where a wire's reroute points are."""
    return [tuple(point["pos"]) for point in chain(part, wire)]


def start(part: Part, source: int, slot: int) -> Point:
    """Return about where a wire begins."""
    if source == ENTRY_SIDE:
        _, top, right, _ = part.border[source]
        return right, top + 20 * slot + 20
    _, top, right, _ = corners([*part.nodes[source]["pos"], *part.nodes[source]["size"]])
    return right, top + 20 * slot + 14


def end(part: Part, target: int, slot: int) -> Point:
    """Return about where a wire ends."""
    if target == EXIT_SIDE:
        left, top, *_ = part.border[target]
        return left, top + 20 * slot + 20
    return part.nodes[target]["pos"][0], slot_height(part.nodes[target], slot)


def slot_height(node: dict[str, Any], slot: int) -> float:
    """Return about how high the editor draws an input."""
    sockets = sum("widget" not in entry for entry in node["inputs"])
    if slot < sockets:
        return node["pos"][1] + 20 * slot + 14
    return node["pos"][1] + 20 * max(sockets, len(node["outputs"])) + 24 * (slot - sockets) + 18


def curves(stops: list[Point]) -> Iterator[Point]:
    """Yield points of a wire, about as the editor bends it: less behind a reroute point."""
    for index, (here, there) in enumerate(itertools.pairwise(stops)):
        reach = math.dist(here, there) / 4
        first = min(reach, 80) if index else reach
        last = reach if index == len(stops) - 2 else min(reach, 80)
        x0, x1, x2, x3 = here[0], here[0] + first, there[0] - last, there[0]
        y0, y1, y2, y3 = here[1], here[1], there[1], there[1]
        for step in range(41):
            t = step / 40
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            yield a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
