"""What ComfyUI says about its nodes, as recorded in tests/data/object_info.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RECORDED: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "object_info.json"

_WIDGET_TYPES: Final = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True)
class InputInfo:
    """One input of a node.

    Attributes:
        name: its id.
        type: its type; "COMBO" for every drop-down list.
        options: the widget's options, such as default and tooltip.
        required: whether a prompt must name it.
    """

    name: str
    type: str
    options: dict[str, Any]
    required: bool

    @property
    def is_widget(self) -> bool:
        """Whether the editor shows a widget for it."""
        return self.type in _WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def default(self) -> Any:
        """The value a new node shows."""
        if "default" in self.options or self.type != "COMBO":
            return self.options.get("default", "" if self.type == "STRING" else 0)
        return self.options["options"][0]

    @property
    def has_control(self) -> bool:
        """Whether the editor adds a "control after generate" widget behind it."""
        return bool(self.options.get("control_after_generate"))


@dataclass(frozen=True)
class NodeInfo:
    """One node class: inputs in the editor's order, outputs as (name, type)."""

    name: str
    title: str
    pack: str
    inputs: tuple[InputInfo, ...]
    outputs: tuple[tuple[str, str], ...]

    def input(self, name: str) -> InputInfo:
        """Return the input called name.

        Raises:
            KeyError: there is none.
        """
        for entry in self.inputs:
            if entry.name == name:
                return entry
        raise KeyError(f"{self.name} has no input {name}")

    def output(self, name: str) -> int:
        """Return the index of the output called name.

        Raises:
            KeyError: there is none.
        """
        for index, (output, _type) in enumerate(self.outputs):
            if output == name:
                return index
        raise KeyError(f"{self.name} has no output {name}")


def read_nodes() -> dict[str, NodeInfo]:
    """Return the recorded node classes by id."""
    recorded: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: node_info(name, entry) for name, entry in recorded.items()}


def node_info(name: str, entry: dict[str, Any]) -> NodeInfo:
    """Return one entry of ComfyUI's /object_info as a value."""
    inputs = [
        _input(key, spec, required=group == "required")
        for group in ("required", "optional")
        for key, spec in entry["input"].get(group, {}).items()
    ]
    types = ["COMBO" if isinstance(kind, list) else str(kind) for kind in entry["output"]]
    return NodeInfo(
        name=name,
        title=entry["display_name"],
        pack=str(entry["python_module"]).rpartition(".")[2],
        inputs=tuple(inputs),
        outputs=tuple(zip(entry["output_name"], types, strict=True)),
    )


def _input(name: str, spec: list[Any], *, required: bool) -> InputInfo:
    kind = spec[0]
    options: dict[str, Any] = dict(spec[1]) if len(spec) > 1 else {}
    if isinstance(kind, list):
        options["options"] = kind
        kind = "COMBO"
    return InputInfo(name, kind, options, required)
