"""A model's weights as they were loaded, whatever is patched into them at the moment.

ComfyUI puts a clone's patches into the weights that all clones share, while that clone is the one
that runs, and keeps the weights before aside. What reads a live weight finds the LoRA of whatever
ran last in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor


def unpatched(model: ModelPatcher, name: str) -> Tensor:
    """Return a parameter as a clone has it without patches, whichever clone is loaded.

    Args:
        model: the clone.
        name: of the parameter, such as `diffusion_model.img_in.weight`.
    """
    found = cast("Tensor", model.get_model_object(name))
    if name in model.object_patches or name in model.object_patches_backup:
        return found  # what is kept aside is that of the clone that is loaded
    kept: Any = model.backup.get(name)
    if kept is not None:
        return kept.weight
    hooked: Any = model.hook_backup.get(name)
    return found if hooked is None else hooked[0]
