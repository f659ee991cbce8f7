"""How large the layers of a FLUX.1 model are. No torch."""

from __future__ import annotations

from typing import Final, NamedTuple

DOUBLE_BLOCKS: Final = 19
SINGLE_BLOCKS: Final = 38
"""So many blocks of each kind FLUX.1 dev and schnell have; others of their kind can have less."""

_TIME: Final = 256
"""Numbers that tell a noise level or a guidance."""


class Sizes(NamedTuple):
    """The sizes that differ between models; the shapes of all layers follow from them.

    Attributes:
        hidden: the width.
        patch: numbers of a patch of the latent.
        text: width of T5's states.
        pooled: width of CLIP's.
        head: channels of a head.
    """

    hidden: int
    patch: int
    text: int
    pooled: int
    head: int

    def outside(self, name: str) -> tuple[int, int]:
        """Return [N,K] of a linear layer before or behind the blocks, by its published name."""
        if name.endswith(".in_layer"):
            return self.hidden, self.pooled if name.startswith("vector_in") else _TIME
        shapes = {
            "img_in": (self.hidden, self.patch),
            "txt_in": (self.hidden, self.text),
            "final_layer.linear": (self.patch, self.hidden),
            "final_layer.adaLN_modulation.1": (2 * self.hidden, self.hidden),
        }
        return shapes.get(name, (self.hidden, self.hidden))

    def in_block(self, name: str) -> tuple[int, int]:
        """Return [N,K] of a linear layer in a block, by its published name."""
        rows, columns = _TIMES_HIDDEN[name.split(".", 2)[2]]
        return rows * self.hidden, columns * self.hidden


FLUX1: Final = Sizes(hidden=3072, patch=64, text=4096, pooled=768, head=128)
"""Of dev and schnell."""

_TIMES_HIDDEN: Final = {
    **{
        f"{stream}_{name}": sides
        for stream in ("img", "txt")
        for name, sides in (
            ("mod.lin", (6, 1)),
            ("attn.qkv", (3, 1)),
            ("attn.proj", (1, 1)),
            ("mlp.0", (4, 1)),
            ("mlp.2", (1, 4)),
        )
    },
    "modulation.lin": (3, 1),
    "linear1": (7, 1),
    "linear2": (1, 5),
}
"""Rows and columns of the linear layers in blocks, in multiples of the model's width."""
