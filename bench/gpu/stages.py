"""What the kit measures, in order. Standard library only; a stage imports what it needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

BASE: Final = ("bf16", "fp8_e4m3fn_fast", "int8 of ComfyUI", "int8", "int8 storage", "fp8")

RESIDENT: Final = ("--highvram",)
"""Of ComfyUI on a card: models stay there, so that nothing but computing is timed."""

OFFLOADS: Final = ()
"""As users have it: what is not loaded lies in main memory, pinned, and comes over in streams."""

PLAINLY: Final = ("--disable-async-offload", "--disable-pinned-memory")


@dataclass(frozen=True)
class Stage:
    """One process of the kit.

    Attributes:
        name: what the lines call it.
        seconds: what it should take on a card.
        module: of this package.
        function: of the module; takes the kit and `engine`, if there is one.
        engine: of `step.ENGINES`, or nothing.
        arguments: of ComfyUI on a card.
    """

    name: str
    seconds: int
    module: str
    function: str = "run"
    engine: str = ""
    arguments: tuple[str, ...] = RESIDENT

    def run(self, kit: Any) -> None:
        """Measure."""
        made = importlib.import_module(f".{self.module}", __package__)
        call = getattr(made, self.function)
        call(kit, self.engine) if self.engine else call(kit)


STAGES: Final = (
    Stage("device", 10, "device"),
    Stage("noise", 15, "noise"),
    Stage("ceilings", 25, "ceilings"),
    Stage("arithmetic", 20, "arithmetic"),
    Stage("safety", 15, "safety"),
    Stage("server", 55, "server"),
    *(Stage(f"step, {name}", 20, "step", "eager", name) for name in BASE),
    *(Stage(f"compiled, {name}", 23, "step", "compiled", name) for name in
      ("int8", "bf16", "fp8", "fp8_e4m3fn_fast", "int8 of ComfyUI")),
    Stage("files", 55, "files", arguments=OFFLOADS),
    Stage("files, not pinned, no streams", 20, "files", "plainly", arguments=PLAINLY),
    Stage("hosted", 10, "hosted", arguments=OFFLOADS),
    Stage("sizes and graphs, int8", 20, "step", "sizes", "int8"),
)  # fmt: skip
"""An engine that is added to `step.ENGINES` is measured once it is named in `BASE`."""
