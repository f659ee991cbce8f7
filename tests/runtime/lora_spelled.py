"""One change of the small FLUX's layers in every spelling that LoRA files have."""

from __future__ import annotations

from collections.abc import Callable

from mini_flux import loras

from .lora_states import State

SIDES = ("lora_down", "lora_up")


def underscored(state: State, *, start: str = "lora_unet_", end: str = "") -> State:
    """The names that kohya makes of modules that have other names elsewhere."""
    made = {}
    for name, value in state.items():
        module, _, slot = (
            name.replace(".alpha", ".!alpha").replace(".lora_", ".!lora_").partition(".!")
        )
        made[f"{start}{module.replace('.', '_')}{end}.{slot}"] = value
    return made


def bare(delta: loras.Delta, alpha: float | None = 2.0) -> State:
    return loras.diffusers(delta, prefix="", sides=SIDES, alpha=alpha)


def omi(delta: loras.Delta) -> State:
    made = {}
    for name in delta:
        names = loras.diffusers_names(name)
        for index, part in enumerate(names):
            target = name if len(names) == 1 else f"{name}.{index}"
            own = loras.native({name: delta[name]}, prefix="", sides=SIDES, alpha=2.0)
            parts = own if len(names) == 1 else bare({name: delta[name]})
            for slot in ("lora_down.weight", "lora_up.weight", "alpha"):
                source = f"{name if len(names) == 1 else part}.{slot}"
                where = target.replace("img_in", "img_in.proj") if name == "img_in" else target
                made[f"transformer.{where}.{slot}"] = parts[source]
    return made


def unmerged(delta: loras.Delta) -> State:
    made = loras.kohya(delta)
    for name in delta:
        names = loras.diffusers_names(name)
        start = f"lora_unet_{name.replace('.', '_')}"
        for index, part in enumerate(names if len(names) > 1 else []):
            for side in SIDES:
                made.pop(f"{start}.{side}.weight", None)
                value = bare({name: delta[name]})[f"{part}.{side}.weight"]
                made[f"{start}.{side}.{index}.weight"] = value
    return made


def processors(delta: loras.Delta) -> State:
    """The names that diffusers had before, for the layers that had one."""
    made = {}
    for name, value in bare(delta, None).items():
        module, _, side = name.partition(".lora_")
        if ".attn." in module:
            block, _, layer = module.partition(".attn.")
            where = f"{block}.attn.processor.{layer.removesuffix('.0')}_lora"
            made[f"transformer.{where}.{side}"] = value
        else:
            made[f"transformer.{name}"] = value
    return made


SPELLINGS: dict[str, Callable[[loras.Delta], State]] = {
    **loras.FAMILIES,
    "early kohya": lambda delta: underscored(bare(delta), end="_"),
    "kohya, names of diffusers": lambda delta: underscored(bare(delta)),
    "OMI": omi,
    "kohya, not merged": unmerged,
    "processors": processors,
    "DDP": lambda delta: loras.diffusers(delta, prefix="module."),
    "compiled": lambda delta: loras.diffusers(delta, prefix="transformer._orig_mod."),
    "a pipeline's": lambda delta: loras.diffusers(delta, prefix="pipe.transformer."),
}
