"""The whole small FLUX, as it is trained: the transformer and both text encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import flux, text


class Model(nn.Module):
    """Everything that learns."""

    def __init__(self, *, guidance: bool) -> None:
        """The transformer and both encoders."""
        super().__init__()
        self.flux = flux.Flux(guidance=guidance)
        self.t5 = text.T5()
        self.clip = text.clip()

    def read(self, words: text.Words, padding: Tensor) -> tuple[Tensor, Tensor]:
        """The text as FLUX gets it: [B,T,32] and [B,16]."""
        return self.t5(words.t5, padding), self.clip(input_ids=words.clip).pooler_output


def noised(latents: Tensor, sigma: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Latents with noise, and the velocity that leads to the noise."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    level = sigma[:, None, None]
    return latents + level * (noise - latents), noise - latents
