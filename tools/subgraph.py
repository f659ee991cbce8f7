"""A graph in two parts: the nodes outside, and those inside the one subgraph that runs a request.

The editor keeps two lists of links. Where a wire crosses the border it becomes two links: outside
it ends at, or starts from, the node that stands for the subgraph; inside that is the border.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from .graph import Graph, Node, Wire

ENTRY_SIDE: Final = -10
"""The id that the editor gives the border where wires come in."""

EXIT_SIDE: Final = -20
"""The same where they go out."""


@dataclass(frozen=True)
class Link:
    """One link of the editor: from an output slot of a node to an input slot of another."""

    id: int
    origin: int
    origin_slot: int
    target: int
    target_slot: int
    type: str


@dataclass(frozen=True)
class Port:
    """A socket of the subgraph.

    Attributes:
        name: that of the output which feeds it.
        wire: that output.
    """

    name: str
    wire: Wire


@dataclass
class Split:
    """A graph in two parts.

    Attributes:
        host: the id of the node that stands for the subgraph.
        outer: the nodes outside.
        inner: the nodes inside.
        entries: the inputs of the subgraph.
        exits: its outputs.
        outer_links: between the nodes outside and the host.
        inner_links: between the nodes inside and the two sides of the border.
    """

    host: int
    outer: list[Node]
    inner: list[Node]
    entries: list[Port] = field(default_factory=list[Port])
    exits: list[Port] = field(default_factory=list[Port])
    outer_links: list[Link] = field(default_factory=list[Link])
    inner_links: list[Link] = field(default_factory=list[Link])

    def __post_init__(self) -> None:
        """Lay the links."""
        for node in [*self.outer, *self.inner]:
            for slot, entry in enumerate(node.slots):
                value = node.inputs.get(entry.name)
                if isinstance(value, Wire):
                    self._connect(value, node, slot)

    def _connect(self, wire: Wire, node: Node, slot: int) -> None:
        comes_from_inside = wire.node in {inner.id for inner in self.inner}
        goes_inside = node in self.inner
        if comes_from_inside == goes_inside:
            links = self.inner_links if goes_inside else self.outer_links
            self._link(links, wire, (wire.node, wire.index), (node.id, slot))
        elif goes_inside:
            port = self._port(self.entries, wire)
            if port == len(self.entries):
                self.entries.append(self._named(wire))
                self._link(self.outer_links, wire, (wire.node, wire.index), (self.host, port))
            self._link(self.inner_links, wire, (ENTRY_SIDE, port), (node.id, slot))
        else:
            port = self._port(self.exits, wire)
            if port == len(self.exits):
                self.exits.append(self._named(wire))
                self._link(self.inner_links, wire, (wire.node, wire.index), (EXIT_SIDE, port))
            self._link(self.outer_links, wire, (self.host, port), (node.id, slot))

    def _link(
        self, links: list[Link], wire: Wire, origin: tuple[int, int], target: tuple[int, int]
    ) -> None:
        number = len(self.outer_links) + len(self.inner_links) + 1
        links.append(Link(number, *origin, *target, wire.type))

    def _named(self, wire: Wire) -> Port:
        nodes = {node.id: node for node in [*self.outer, *self.inner]}
        return Port(nodes[wire.node].info.outputs[wire.index][0], wire)

    @staticmethod
    def _port(ports: list[Port], wire: Wire) -> int:
        """Return the number of the port that a wire goes through; the next one if there is none."""
        return next((i for i, port in enumerate(ports) if port.wire == wire), len(ports))


def split(graph: Graph, outside: Set[str]) -> Split:
    """Return a graph in its two parts.

    Args:
        graph: is not modified.
        outside: the node classes that stay outside.
    """
    outer = [node for node in graph.nodes if node.info.name in outside]
    inner = [node for node in graph.nodes if node.info.name not in outside]
    return Split(len(graph.nodes) + 1, outer, inner)
