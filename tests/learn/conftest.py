"""What tests of the training share."""

from __future__ import annotations

import pytest
from mini_flux.learn import text
from mini_flux.load_diffusers import load_tokenizers
from runtime.comfyui import find_comfyui


@pytest.fixture(scope="session")
def tokenizers() -> text.Tokenizers:
    return text.Tokenizers(*load_tokenizers(find_comfyui().path))
