"""What the kit measures, in order. Standard library only; a stage imports what it needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

BASE: Final = ("bf16", "fp8_e4m3fn_fast", "int8 of ComfyUI", "int8", "int8 storage")


@dataclass(frozen=True)
class Stage:
    """One process of the kit.

    Attributes:
        name: what the lines call it.
        seconds: what it should take on a card.
        module: of this package.
        function: of the module; takes the kit and `engine`, if there is one.
        engine: of `step.ENGINES`, or nothing.
    """

    name: str
    seconds: int
    module: str
    function: str = "run"
    engine: str = ""

    def run(self, kit: Any) -> None:
        """Measure."""
        made = importlib.import_module(f".{self.module}", __package__)
        call = getattr(made, self.function)
        call(kit, self.engine) if self.engine else call(kit)


STAGES: Final = (
    Stage("device", 10, "device"),
    Stage("noise", 20, "noise"),
    Stage("ceilings", 30, "ceilings"),
    Stage("arithmetic", 25, "arithmetic"),
    Stage("safety", 20, "safety"),
    Stage("server", 60, "server"),
    *(Stage(f"step, {name}", 26, "step", "eager", name) for name in BASE),
    *(Stage(f"compiled, {name}", 35, "step", "compiled", name) for name in
      ("int8", "bf16", "fp8_e4m3fn_fast")),
    Stage("files", 60, "files"),
    Stage("sizes, int8", 25, "step", "sizes", "int8"),
)  # fmt: skip
"""An engine that is added to `step.ENGINES` is measured once it is named in `BASE`."""
