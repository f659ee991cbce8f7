"""A graph of ComfyUI nodes: built by recipes, written as an API prompt.

`graph.add("VAELoader", vae_name="ae.safetensors")` adds a node; `node["VAE"]` is the wire of its
output; a wire given as an input connects the two. Widgets that are left out take the default that
ComfyUI names for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..prediction.fill import Prompt
from .nodes_info import InputInfo, NodeInfo


@dataclass(frozen=True)
class Wire:
    """An output of a node."""

    node: int
    index: int
    type: str


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes:
        inputs: input name to a value or a wire, in the order of the class.
    """

    id: int
    info: NodeInfo
    inputs: dict[str, Any]

    def __getitem__(self, output: str) -> Wire:
        """Return the wire of the output called so."""
        index = self.info.output(output)
        return Wire(self.id, index, self.info.outputs[index][1])

    @property
    def slots(self) -> list[InputInfo]:
        """Its inputs in the order of the editor's slots: wires first, then widgets."""
        return sorted(self.info.inputs, key=lambda entry: entry.is_widget)


@dataclass
class Graph:
    """A graph that is being built."""

    classes: Mapping[str, NodeInfo]
    nodes: list[Node] = field(default_factory=list[Node])

    def add(self, class_type: str, **given: Any) -> Node:
        """Add a node and return it.

        Args:
            class_type: the node's class.
            given: values and wires of its inputs.

        Raises:
            KeyError: the class, or an input of it, does not exist.
            ValueError: a required input without a widget is left out, or a wire does not fit.
        """
        info = self.classes[class_type]
        for name, value in given.items():
            entry = info.input(name)
            if isinstance(value, Wire) and value.type != entry.type:
                raise ValueError(f"{class_type}.{name} takes {entry.type}, not {value.type}")
        inputs: dict[str, Any] = {}
        for entry in info.inputs:
            if entry.name in given:
                inputs[entry.name] = given[entry.name]
            elif entry.is_widget:
                inputs[entry.name] = entry.default
            elif entry.required:
                raise ValueError(f"{class_type}.{entry.name} needs a wire")
        node = Node(len(self.nodes) + 1, info, inputs)
        self.nodes.append(node)
        return node

    def to_prompt(self) -> Prompt:
        """Return the graph in ComfyUI's API format."""
        return {
            str(node.id): {
                "class_type": node.info.name,
                "inputs": {name: _api_value(value) for name, value in node.inputs.items()},
                "_meta": {"title": node.info.title},
            }
            for node in self.nodes
        }


def _api_value(value: Any) -> Any:
    return [str(value.node), value.index] if isinstance(value, Wire) else value
