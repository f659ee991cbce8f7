"""What every node shares: the category, and inputs that behave alike on all ComfyUI versions.

ComfyUI 0.3.75 does not check the value of a V3 combo and does not let a V3 combo output feed a V3
combo input. `Choice` emits its list of options as the type, as the older node API did, which every
version checks and connects.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfy_api.latest import io

from ..gate.refused import Refused
from ..prediction.spec import GO_FAST_LORA, GO_FAST_MULTIPLIER, Field, Kind

CATEGORY: Final = "flux hotswap"

_WIDGET_DEFAULTS: Final = {"width": 1024, "height": 1024, "seed": 0}
"""What a widget shows where the schema's default is "not given"; a widget cannot be empty."""

_STEPS: Final = {"width": 16, "height": 16, "guidance_scale": 0.1}
_NUMBER_STEP: Final = 0.01


class Options(list[Any]):
    """A list of options that can be looked up in a dict, as newer versions do with types."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - that is it
        """Return a hash by identity: no two lists are the same key."""
        return id(self)


class Choice:
    """A drop-down list: `Choice.Input` and `Choice.Output`, in the manner of `io.Combo`."""

    class Input(io.Combo.Input):
        """A drop-down input whose value every ComfyUI version checks."""

        def get_io_type(self) -> Any:
            """Return the list of options, the type that servers of any age validate."""
            return Options(self.options)

    class Output(io.Combo.Output):
        """An output that fits a `Choice.Input` of the same options."""

        @property
        def io_type(self) -> Any:
            """Return the list of options, as the input does."""
            return Options(self.options)


class Names(Options):
    """A list of files that a workflow may go beyond: which file is needed shows at run time."""

    def __contains__(self, value: object) -> bool:
        """Take every name that was not refused."""
        return isinstance(value, str) and not isinstance(value, Refused)


class Minimum(float):
    """A lower limit that NaN is below too, so that ComfyUI's own range check refuses NaN."""

    def __gt__(self, value: float) -> bool:
        """Answer `value < self`, which Python asks a subclass of float first."""
        return not value >= float(self)


def aliases(*words: str) -> dict[str, Any]:
    """Return what else a node is found by in the editor, for `io.Schema`; 0.3.75 knows no such."""
    known = "search_aliases" in inspect.signature(io.Schema).parameters
    return {"search_aliases": list(words)} if known else {}


def field_input(field: Field, *, name: str | None = None, **overrides: Any) -> io.Input:
    """Return the widget of a request's field.

    Args:
        field: from the spec, gives type, default, range and tooltip.
        name: the input's id, the field's name if None.
        overrides: passed on to the input, such as default, optional, tooltip or force_input.
    """
    default = field.default if field.default is not None else _WIDGET_DEFAULTS.get(field.name)
    options: dict[str, Any] = {
        "default": default,
        "optional": not field.required,
        "tooltip": field.help,
    }
    match field.kind:
        case Kind.ENUM:
            choices: dict[str, Any] = {"options": list(field.choices)}
            return Choice.Input(name or field.name, **options | choices | overrides)
        case Kind.BOOLEAN:
            return io.Boolean.Input(name or field.name, **options | overrides)
        case Kind.INTEGER | Kind.NUMBER:
            return _number_input(name or field.name, field, options, overrides)
        case _:
            text = options | {"default": "", "multiline": field.name == "prompt"}
            return io.String.Input(name or field.name, **text | overrides)


def go_fast_inputs() -> list[io.Input]:
    """Return the widgets of what go_fast makes of LoRA strengths."""
    multiplier = io.Float.Input(
        "go_fast_multiplier",
        default=GO_FAST_MULTIPLIER,
        min=Minimum(0.0),
        max=3,
        step=0.01,
        optional=True,
        tooltip="What LoRA strengths are multiplied by, with go_fast only; 1 turns it off.",
    )
    arrival = Choice.Input(
        "go_fast_lora",
        options=list(GO_FAST_LORA),
        default=GO_FAST_LORA[0],
        optional=True,
        tooltip="How much of that arrives, with go_fast only. hosted: as much as on the hosted "
        "model, whose rounding takes a part away. whole: all of it.",
    )
    return [multiplier, arrival]


def field_output(field: Field, tooltip: str) -> io.Output:
    """Return an output that carries a request's field and fits the widget of the same field.

    Args:
        field: from the spec.
        tooltip: what goes out; the field's help says what to put in.
    """
    # An input and an output of one node may not share an id on 0.3.75.
    name, title = f"out_{field.name}", field.name
    match field.kind:
        case Kind.ENUM:
            options = list(field.choices)
            return Choice.Output(name, display_name=title, options=options, tooltip=tooltip)
        case Kind.BOOLEAN:
            return io.Boolean.Output(name, display_name=title, tooltip=tooltip)
        case Kind.INTEGER:
            return io.Int.Output(name, display_name=title, tooltip=tooltip)
        case Kind.NUMBER:
            return io.Float.Output(name, display_name=title, tooltip=tooltip)
        case _:
            return io.String.Output(name, display_name=title, tooltip=tooltip)


def told(record: Mapping[str, Any]) -> list[str]:
    """Return what a node tells in its `ui` output.

    It goes out as JSON text: ComfyUI counts every dict among the outputs as a picture.
    """
    return [json.dumps(record, ensure_ascii=False)]


class FilesChoice(Choice.Input):
    """A drop-down of files; a workflow may name one that is not there yet."""

    def __init__(self, name: str, files: Sequence[str], default: str, tooltip: str) -> None:
        super().__init__(name, options=list(files), default=default, tooltip=tooltip)

    def get_io_type(self) -> Any:
        """Return the list of files as one that takes other names too."""
        return Names(self.options)


def _number_input(
    name: str, field: Field, options: dict[str, Any], overrides: dict[str, Any]
) -> io.Input:
    limits: dict[str, Any] = {"min": field.minimum, "max": field.maximum}
    if field.kind is Kind.NUMBER:
        limits["min"] = Minimum(-math.inf if field.minimum is None else field.minimum)
        step = {"step": _STEPS.get(field.name, _NUMBER_STEP)}
        return io.Float.Input(name, **options | limits | step | overrides)
    extra: dict[str, Any] = {"step": _STEPS.get(field.name, 1)}
    if field.name == "seed":
        extra["control_after_generate"] = True
    return io.Int.Input(name, **options | limits | extra | overrides)
