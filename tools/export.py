"""A workflow file of the graph editor back as an API prompt, as the editor itself exports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..prediction.fill import Prompt
from .nodes_info import NodeInfo
from .recipes import PICTURE
from .subgraph import ENTRY_SIDE


def to_prompt(workflow: Mapping[str, Any], classes: Mapping[str, NodeInfo]) -> Prompt:
    """Return a workflow file as an API prompt; node 7 inside subgraph node 3 is called 3:7.

    Args:
        workflow: its subgraphs hold no further ones.
        classes: all node classes.
    """
    runs = {run["id"]: run for run in workflow["definitions"]["subgraphs"]}
    hosts = {node["id"]: node for node in workflow["nodes"] if node["type"] in runs}
    origins: dict[int, list[Any]] = {}
    for number, origin, slot, *_ in workflow["links"]:
        host = hosts.get(origin)
        origins[number] = _exit(runs[host["type"]], origin, slot) if host else [str(origin), slot]
    prompt = _nodes(workflow["nodes"], origins, "", classes)
    for number, host in hosts.items():
        run = runs[host["type"]]
        entries = [origins.get(slot["link"]) for slot in host["inputs"]]
        inner = {
            link["id"]: entries[link["origin_slot"]]
            if link["origin_id"] == ENTRY_SIDE
            else [f"{number}:{link['origin_id']}", link["origin_slot"]]
            for link in run["links"]
        }
        prompt |= _nodes(run["nodes"], inner, f"{number}:", classes)
    return prompt


def flat(prompt: Prompt) -> Prompt:
    """Return an exported prompt with the ids that nodes have inside their subgraphs.

    In the shipped files no two nodes share an id, inside or out.
    """
    return {
        _plain(number): node
        | {"inputs": {name: _plain_wire(value) for name, value in node["inputs"].items()}}
        for number, node in prompt.items()
    }


def as_opened(prompt: Prompt) -> Prompt:
    """Return a shipped prompt as its workflow file has it: no picture is named in that."""
    return {
        number: node | ({"inputs": {}} if node["class_type"] == PICTURE else {})
        for number, node in prompt.items()
    }


def _plain(number: str) -> str:
    return number.rpartition(":")[2]


def _plain_wire(value: Any) -> Any:
    """Return an input's value; a wire is [id, slot]."""
    if not isinstance(value, list):
        return value
    number, slot = cast("list[Any]", value)
    return [_plain(number), slot]


def _exit(run: Mapping[str, Any], host: int, port: int) -> list[Any]:
    """Return the output inside a subgraph that feeds one of its own outputs."""
    (number,) = run["outputs"][port]["linkIds"]
    link = next(link for link in run["links"] if link["id"] == number)
    return [f"{host}:{link['origin_id']}", link["origin_slot"]]


def _nodes(
    nodes: Sequence[Mapping[str, Any]],
    origins: Mapping[int, Any],
    prefix: str,
    classes: Mapping[str, NodeInfo],
) -> Prompt:
    """Return the nodes of one level.

    Args:
        nodes: as in the file.
        origins: what feeds each link, by its id.
        prefix: before each id.
        classes: all node classes.
    """
    prompt: Prompt = {}
    for node in nodes:
        info = classes.get(node["type"])
        if info is None:  # notes and subgraphs have no class on the server
            continue
        inputs: dict[str, Any] = dict(_widget_values(info, node["widgets_values"]))
        for slot in node["inputs"]:
            if slot.get("link") is not None:
                inputs[slot["name"]] = origins[slot["link"]]
        ordered = {entry.name: inputs[entry.name] for entry in info.inputs if entry.name in inputs}
        prompt[f"{prefix}{node['id']}"] = {
            "class_type": info.name,
            "inputs": ordered,
            "_meta": {"title": node.get("title", info.title)},
        }
    return prompt


def _widget_values(info: NodeInfo, values: list[Any]) -> Iterator[tuple[str, Any]]:
    if not values:  # they are left to the editor
        return
    remaining = iter(values)
    for entry in info.inputs:
        if not entry.is_widget:
            continue
        yield entry.name, next(remaining)
        if entry.has_control:
            next(remaining)
