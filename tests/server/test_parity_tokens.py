"""T5 and CLIP get the tokens of the transformers tokenizers, padded and cut as when hosted.

The ids are seen through what comes out: the conditioning of the real server equals what the
encoders of transformers, with the same weights, make of exactly these ids.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux.load_diffusers import Model, load_clip, load_t5, load_tokenizers
from parity import assert_same, encode
from runtime.comfyui import find_comfyui
from runtime.session import Comfy
from torch import Tensor

T5_LENGTH: dict[Model, int] = {"dev": 512, "schnell": 256}
CLIP_LENGTH = 77

PROMPTS = {
    "plain": "a photo of TOK, a lighthouse on a cliff at dusk",
    "empty": "",
    "spaces and lines": "  a cat,\n\n  a\tdog  ",
    "weights": "(cat:1.3) [dog] ((very big)) (a|b) \\(escaped\\)",
    "embedding": "a cat in the style of embedding:foo, embedding:bar:1.2",
    "lora and wildcard": "<lora:some:0.8> __animals__ {red|blue} BREAK AND a cat",
    "special tokens": "a </s> cat <pad> <unk> <extra_id_0> dog <|endoftext|> bird <|startoftext|>",
    "longer than CLIP": "a red fox jumps over a lazy brown dog, " * 12,
    "longer than schnell's T5": "a red fox jumps over a lazy brown dog, " * 30,
    "longer than dev's T5": "a red fox jumps over a lazy brown dog, " * 80,
    "Chinese": "一只猫坐在窗台上,黄昏的光",
    "Cyrillic, Greek, Arabic": "маяк на скале, φάρος, منارة على جرف",
    "accents": "Ein Fuß überm café, ﬁne ½ № Ⅷ İstanbul",
    "emoji": "a cat 🐈‍⬛ and 👩🏽‍🚀 in space 🚀🚀",
    "odd characters": "zero\u200bwidth, \ufeffmark, nul-free \x07 bell, \U0001d4d0\U0001d4d1",
}


@functools.cache
def encoders(folder: Path) -> tuple[Any, Any]:
    return load_t5(folder), load_clip(folder)


@functools.cache
def tokenizers() -> tuple[Any, Any]:
    clip, t5 = load_tokenizers(find_comfyui().path)
    return t5, clip


def ids(tokenizer: Any, text: str, length: int) -> Tensor:
    """[1,length] token ids, as the hosted model asks for them."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return tokenizer(text, max_length=length, **options).input_ids


def encoded(folder: Path, t5_ids: Tensor, clip_ids: Tensor) -> tuple[Tensor, Tensor]:
    """What transformers makes of token ids; no attention mask, as on the hosted model."""
    t5, clip = encoders(folder)
    with torch.no_grad():
        return t5(t5_ids)[0], clip(clip_ids).pooler_output


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_tokens_are_those_of_transformers(comfy: Comfy, model: Model, text: str) -> None:
    embeds, pooled = encode(comfy, {"prompt": text, "model": model})
    t5, clip = tokenizers()
    length = T5_LENGTH[model]
    their_embeds, their_pooled = encoded(
        comfy.models, ids(t5, text, length), ids(clip, text, CLIP_LENGTH)
    )
    assert embeds.shape[1] == length
    assert_same(embeds, their_embeds)
    assert_same(pooled, their_pooled)


@pytest.mark.parametrize("position", [0, 1, 40, 75])
def test_one_other_token_would_show(comfy: Comfy, position: int) -> None:
    t5, clip = tokenizers()
    text = PROMPTS["longer than dev's T5"]
    t5_ids, clip_ids = ids(t5, text, 512), ids(clip, text, CLIP_LENGTH)
    before = encoded(comfy.models, t5_ids, clip_ids)
    t5_ids[0, position] += 1
    clip_ids[0, position] -= 1
    after = encoded(comfy.models, t5_ids, clip_ids)
    for one, other in zip(before, after, strict=True):
        assert (one - other).abs().max() > 1e-3


def test_the_prompts_are_as_long_as_they_say() -> None:
    t5, clip = tokenizers()
    assert len(clip(PROMPTS["longer than CLIP"]).input_ids) > 77
    assert 256 < len(t5(PROMPTS["longer than schnell's T5"]).input_ids) < 512
    assert len(t5(PROMPTS["longer than dev's T5"]).input_ids) > 512


def test_the_tokenizers_are_the_published_ones() -> None:
    t5, clip = tokenizers()
    # The ids that the documentation of T5 and CLIP shows for these texts.
    german = "translate English to German: The house is wonderful."
    assert ids(t5, german, 12).tolist() == [[13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1, 0]]
    assert ids(clip, "a photo of a cat", 9).tolist() == [
        [49406, 320, 1125, 539, 320, 2368, 49407, 49407, 49407]
    ]


@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_a_cut_text_keeps_its_end_token(model: Model) -> None:
    t5, clip = tokenizers()
    text = PROMPTS["longer than dev's T5"]
    assert ids(t5, text, T5_LENGTH[model])[0, -1] == 1
    assert ids(clip, text, CLIP_LENGTH)[0, -1] == 49407
