"""Make importable what ComfyUI imports and FLUX does not need. Standard library only.

The torchvision wheels need the CUDA build of torch and fail to import beside a CPU build; newer
ComfyUI imports torchaudio whatever it runs, and each version av. The first gets the operators it
misses, the others may be empty. All only where the real ones cannot be imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def install() -> None:
    """Put the repairs in the way of these imports; does nothing until one is asked for."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_EmptyModule())


# Operators that torchvision registers shape functions for while it is imported.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _Rescue(importlib.abc.Loader):
    """Loads a module with its own loader, and mends or empties it if that cannot work."""

    def __init__(self, name: str, real: importlib.abc.Loader) -> None:
        self.name = name
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.real.exec_module(module)
        except RuntimeError as error:
            if self.name != "torchvision" or "torchvision::nms" not in str(error):
                raise
            self._forget_parts()
            _define_schemas()
            self.real.exec_module(module)
        except (ImportError, OSError):
            # A torchaudio built for another torch: the core imports it, FLUX never calls it.
            if self.name != "torchaudio":
                raise
            self._forget_parts()

    def _forget_parts(self) -> None:
        for name in [name for name in sys.modules if name.startswith(self.name + ".")]:
            del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    """Puts `_Rescue` around torchvision and torchaudio, when something asks for them.

    Waiting for that keeps torch unimported here: ComfyUI wants to set up its allocator first.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in {"torchvision", "torchaudio"}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Rescue(fullname, spec.loader)
        return spec


_EMPTY = {"torchaudio", "av"}
"""What may be missing."""


class _EmptyModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for what is not installed; asked last, after every real finder."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system gives it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _EMPTY:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__version__ = "0"  # type: ignore[attr-defined]
        module.__getattr__ = _empty_class  # type: ignore[method-assign]


def _empty_class(name: str) -> type:
    """A class to import and to name in annotations; every module of `_EMPTY` has any of them."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def _define_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _KEPT.append(library)  # a library takes its operators with it when it is collected


_KEPT: list[object] = []
