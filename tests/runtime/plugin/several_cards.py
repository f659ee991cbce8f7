"""Give models of ComfyUI 0.3.75 the clones on other cards that a current ComfyUI makes.

A clone is loaded once more by what `cached_patcher_init` names, and so has weights of its own; all
else is taken from the model that it is a clone of, before who listens is told. Models that go
along with a model, such as control nets, are not cloned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import comfy.model_management
import comfy.model_patcher
import comfy.sd

_CLONES = "multigpu"
"""The key of a model's clones among the models that go along with it."""


@contextmanager
def installed() -> Iterator[None]:
    """Have ComfyUI behave so within this block."""
    patcher: Any = comfy.model_patcher.ModelPatcher
    methods = {
        "clone": _keeping_the_loader(patcher.clone),
        "deepclone_multigpu": deepclone_multigpu,
        "match_multigpu_clones": match_multigpu_clones,
    }
    names = ("load_diffusion_model", "load_diffusion_model_state_dict")
    loaders = {name: _taking_the_switch(getattr(comfy.sd, name)) for name in names}
    with ExitStack() as stack:
        for name, method in methods.items():
            stack.enter_context(patch.object(patcher, name, method, create=True))
        for name, loader in loaders.items():
            stack.enter_context(patch.object(comfy.sd, name, loader))
        yield


def deepclone_multigpu(self: Any, new_load_device: Any = None, models_cache: Any = None) -> Any:
    """Return a clone for another card, with weights of its own."""
    comfy.model_management.unload_all_models()
    load, given = self.cached_patcher_init
    made = _clone_on(self, load(*given).model, ({}, {}, set()))
    made.hook_backup = {}
    made.load_device = new_load_device or made.load_device
    for callback in self.get_all_callbacks("on_deepclone_multigpu"):
        callback(self, made)
    return made


def match_multigpu_clones(self: Any) -> None:
    """Make the clones that go along with a model what the model has become since."""
    matched: list[Any] = []
    for clone in self.get_additional_models_with_key(_CLONES):
        kept = (clone.backup, clone.object_patches_backup, clone.pinned)
        made = _clone_on(self, clone.model, kept)
        made.hook_backup, made.load_device = clone.hook_backup, clone.load_device
        for callback in self.get_all_callbacks("on_match_multigpu_clones"):
            callback(self, made)
        matched.append(made)
    if matched:
        self.set_additional_models(_CLONES, matched)


def _clone_on(model: Any, network: Any, kept: tuple[Any, Any, Any]) -> Any:
    """A clone that runs another network, of which `kept` was put aside while it is patched."""
    made = model.clone()
    made.model = network
    made.backup, made.object_patches_backup, made.pinned = kept
    made.remove_additional_models(_CLONES)
    return made


def _keeping_the_loader(clone: Any) -> Any:
    def cloned(self: Any) -> Any:
        made = clone(self)
        made.cached_patcher_init = getattr(self, "cached_patcher_init", None)
        return made

    return cloned


def _taking_the_switch(load: Any) -> Any:
    """A loader that can be asked for a model without dynamic memory; here no model has it."""

    def loaded(*args: Any, disable_dynamic: bool = False, **kwargs: Any) -> Any:
        return load(*args, **kwargs)

    return loaded
