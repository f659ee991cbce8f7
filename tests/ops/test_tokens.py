"""Prompt tokens with a small but real tokenizer: padded, cut, and nothing read into the text."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flux_hotswap.ops.tokens import CLIP_LENGTH, padded_tokens

PAD, START, END, UNKNOWN = 0, 1, 2, 3
UNKNOWN_WORD = "<unk>"
WORDS = ["a", "photo", "of", "cat", "(", ")", ":", "1.3", "embedding", "\u732b"]
VOCABULARY = {"<pad>": PAD, "<s>": START, "</s>": END, UNKNOWN_WORD: UNKNOWN} | {
    word: number for number, word in enumerate(WORDS, 4)
}


def tokenizer_of(template: str, padding: str) -> PreTrainedTokenizerFast:
    """Return a word tokenizer that frames the text as template says."""
    words = Tokenizer(models.WordLevel(VOCABULARY, UNKNOWN_WORD))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            *(pre_tokenizers.Split(mark, "isolated") for mark in "():"),
        ]
    )
    words.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", START), ("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=padding, unk_token=UNKNOWN_WORD
    )


@pytest.fixture(scope="module")
def t5() -> PreTrainedTokenizerFast:
    """As T5's: an end token, then padding."""
    return tokenizer_of("$A </s>", "<pad>")


@pytest.fixture(scope="module")
def clip() -> PreTrainedTokenizerFast:
    """As CLIP's: a start and an end token, the end token pads."""
    return tokenizer_of("<s> $A </s>", "</s>")


def ids(text: str) -> list[int]:
    return [VOCABULARY[word] for word in text.split()]


@pytest.mark.parametrize("length", [8, 77, 256, 512])
@pytest.mark.parametrize("text", ["", "a", "a photo of a cat", "\u732b \u732b"])
def test_short_text_is_padded(text: str, length: int, t5: PreTrainedTokenizerFast) -> None:
    tokens = padded_tokens(t5, text, length)
    words = ids(text)
    assert tokens == [*words, END] + [PAD] * (length - len(words) - 1)
    assert all(type(token) is int for token in tokens)


@pytest.mark.parametrize("length", [8, 77, 256, 512])
@pytest.mark.parametrize("extra", [0, 1, 500])
def test_long_text_keeps_its_end_token(
    length: int, extra: int, t5: PreTrainedTokenizerFast
) -> None:
    text = " ".join(["cat"] * (length - 1 + extra))
    assert padded_tokens(t5, text, length) == [VOCABULARY["cat"]] * (length - 1) + [END]


def test_clip_frames_and_pads(clip: PreTrainedTokenizerFast) -> None:
    assert CLIP_LENGTH == 77
    assert padded_tokens(clip, "a cat", CLIP_LENGTH) == [START, *ids("a cat"), *[END] * 74]
    long = padded_tokens(clip, "cat " * 200, CLIP_LENGTH)
    assert long == [START, *[VOCABULARY["cat"]] * 75, END]


def test_weights_are_plain_text(t5: PreTrainedTokenizerFast) -> None:
    tokens = padded_tokens(t5, "a (cat:1.3) embedding:cat", 16)
    assert tokens == [*ids("a ( cat : 1.3 ) embedding : cat"), END, *[PAD] * 6]


def test_calls_leave_no_trace(t5: PreTrainedTokenizerFast) -> None:
    """A fast tokenizer remembers its last padding; one call must not change the next."""
    before = padded_tokens(t5, "a cat", 77)
    padded_tokens(t5, "cat " * 600, 512)
    padded_tokens(t5, "", 8)
    assert padded_tokens(t5, "a cat", 77) == before
