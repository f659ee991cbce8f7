"""What the page of fields tells beyond `spec.py`: an example of each field, and some detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_PROMPT: Final = {"prompt": "a lighthouse at dusk"}
_IMAGE: Final = {**_PROMPT, "image": "harbour.png"}
_CUSTOM: Final = {**_PROMPT, "aspect_ratio": "custom", "width": 1200, "height": 800}


@dataclass(frozen=True)
class FieldNote:
    """An example of a field and what else there is to know.

    Attributes:
        example: a whole request that uses the field.
        detail: more than fits in a tooltip, Markdown; "" if there is no more.
    """

    example: dict[str, Any]
    detail: str = ""


FIELD_NOTES: Final[dict[str, FieldNote]] = {
    "prompt": FieldNote(
        _PROMPT,
        "T5 reads 512 tokens of it with dev and 256 with schnell, CLIP reads 77; the rest is cut "
        "off. An empty text is a prompt too.",
    ),
    "image": FieldNote(
        _IMAGE,
        "The name of a file in ComfyUI's input folder, a `data:` URI or an https link: PNG, JPEG, "
        "WebP, GIF, BMP or TIFF, up to 64 MB, decoded in 400 MB at most (48 megapixels as "
        "PNG, 13 as WebP, 24 as TIFF, most JPEGs). What is cut short is used with a warning. It is "
        "shrunk to fit 1440x1440, never enlarged; then each side goes up to a multiple of 16, "
        "without a crop. "
        "Of an animation the first frame is used. An image connected to `input_image` of the "
        "Inputs node wins over this name.",
    ),
    "mask": FieldNote(
        {**_IMAGE, "mask": "harbour-sky.png"},
        "Named as the image is. It is brought to the image's size without smoothing and cut hard "
        "at half grey. One latent cell, 8x8 pixels, is kept or repainted as a whole: its top-left "
        "pixel decides. What is kept still passes through the VAE once.",
    ),
    "aspect_ratio": FieldNote({**_PROMPT, "aspect_ratio": "16:9"}, "See [sizes](#sizes)."),
    "height": FieldNote(
        _CUSTOM, "The range is checked before rounding. A tie goes up: 264 becomes 272."
    ),
    "width": FieldNote(_CUSTOM, "As `height`."),
    "prompt_strength": FieldNote(
        {**_IMAGE, "prompt_strength": 0.6},
        "Of n steps, `int(n - n * prompt_strength)` are skipped. Above 1 - 1/n none is skipped, "
        "and of the image only its size is left. With schnell at 4 steps that is everything above "
        "0.75, the default included.",
    ),
    "model": FieldNote(
        {**_PROMPT, "model": "schnell", "num_inference_steps": 4},
        "It decides which file the loader reads. It never changes another field: schnell without "
        "`num_inference_steps` runs 28 steps.",
    ),
    "num_outputs": FieldNote(
        {**_PROMPT, "num_outputs": 4, "seed": 42},
        "The images share one draw of noise and have no seeds of their own. The second one can "
        "be drawn again in any batch of two or more, not alone.",
    ),
    "num_inference_steps": FieldNote({**_PROMPT, "num_inference_steps": 20}),
    "guidance_scale": FieldNote(
        {**_PROMPT, "guidance_scale": 2.5}, "There is no negative prompt and no second pass."
    ),
    "seed": FieldNote(
        {**_PROMPT, "seed": 42},
        "In the graph editor the widget always holds a number; an API request can leave it out.",
    ),
    "output_format": FieldNote({**_PROMPT, "output_format": "png"}, "png is lossless."),
    "output_quality": FieldNote(
        {**_PROMPT, "output_format": "jpg", "output_quality": 95},
        "100 is not lossless in webp either.",
    ),
    "disable_safety_checker": FieldNote(
        {**_PROMPT, "disable_safety_checker": True},
        "The hosted model drops every image that its checker flags, and fails if none is left.",
    ),
    "go_fast": FieldNote({**_PROMPT, "go_fast": False}),
    "megapixels": FieldNote(
        {**_PROMPT, "megapixels": "0.25"},
        "A text, not a number. A custom size and an image ignore it. See [sizes](#sizes).",
    ),
    "lora": FieldNote({**_PROMPT, "lora": "my-style.safetensors"}),
    "lora_scale": FieldNote({**_PROMPT, "lora": "my-style.safetensors", "lora_scale": 0.9}),
    "extra_lora": FieldNote(
        {**_PROMPT, "lora": "my-style.safetensors", "extra_lora": "my-face.safetensors"}
    ),
    "extra_lora_scale": FieldNote(
        {
            **_PROMPT,
            "lora": "my-style.safetensors",
            "extra_lora": "my-face.safetensors",
            "extra_lora_scale": 0.7,
        }
    ),
}
"""By field name."""
