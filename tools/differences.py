"""What differs from the hosted model beyond single fields, and what is not there yet.

The README and the page of fields are made from these rows. How a single field differs stands with
the field, in `spec.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Difference:
    """A topic on which the hosted model and this pack are compared.

    Attributes:
        topic: a few words.
        hosted: what the hosted model does.
        ours: what this pack does.
    """

    topic: str
    hosted: str
    ours: str


DIFFERENCES: Final[tuple[Difference, ...]] = (
    Difference(
        "noise",
        "One draw of an H100's generator in bf16, for all outputs at once.",
        "The same values on any machine (`hosted`, the default), or ComfyUI's usual noise "
        "(`comfy`).",
    ),
    Difference(
        "noise with an image",
        "Encoding the image takes the generator's first draw, the noise is the second.",
        "The image is encoded without a draw (the posterior's mode, a tiny difference). The noise "
        "is still the second draw.",
    ),
    Difference(
        "null, other names, unknown fields",
        "null is not given. Unknown fields are dropped; other wrong values are refused.",
        "null is not given, `lora_weights` and `replicate_weights` count as `lora`, and everything "
        "else is refused by name: the same in the form, as a prompt, pasted and in `dev.py plan`. "
        "The hosted model's API drops unknown fields here too, and names them in the log.",
    ),
    Difference(
        "seed that is left out",
        "16 or 32 random bits, written to the log only.",
        "Drawn from 0 to 4294967295; reported in the result and in the files.",
    ),
    Difference(
        "text",
        "T5 padded and cut at 512 tokens (dev) or 256 (schnell) without an attention mask, CLIP at "
        "77, no weighting syntax.",
        "The same. Parentheses and weights are plain text, unlike in ComfyUI's own text nodes.",
    ),
    Difference(
        "mask grid",
        "A latent cell follows the top-left pixel of its 8x8 block, so a small white area can "
        "vanish unnoticed.",
        "The same grid, with a warning when the whole white area vanishes on it.",
    ),
    Difference(
        "route",
        "go_fast is switched off for a custom size or an image, which only the log says.",
        "The same, and the nodes report the route and the reason.",
    ),
    Difference(
        "LoRA strength",
        "Differs between the routes by mistake: squared for a single LoRA in bf16, times 1.5 only "
        "on the main LoRA in fp8.",
        "The scale itself in bf16, times 1.5 for both LoRAs with go_fast; of that as much arrives "
        "as there, where rounding takes a part (go_fast_lora). Engine fp8 merges as there. The "
        "same LoRA twice adds up.",
    ),
    Difference(
        "pixels to 8 bit",
        "Rounded by the bf16 engine, converted in bf16 by the fast one.",
        "Rounded; in engine fp8 as there.",
    ),
    Difference(
        "noise level",
        "Told to the model in bf16, and 1000 times that in bf16 again.",
        "The same where the model computes in bf16.",
    ),
    Difference(
        "an image and its noise",
        "Mixed by the noise level rounded to bf16, such as 0.9375 for 0.9356.",
        "Mixed by the level itself, which is at most 0.2 % away.",
    ),
    Difference(
        "seed with go_fast",
        "Taken modulo 4294967295.",
        "The same for hosted noise, and reported.",
    ),
    Difference(
        "file names",
        "out-0.webp, out-1.webp, with gaps where an image was dropped.",
        "ComfyUI's: a prefix and a counter in the output folder, listed in batch order.",
    ),
    Difference(
        "metadata in files",
        "None.",
        "The graph, the record of what ran, and the `parameters` text that other tools read. A "
        "file dropped on the editor brings its graph back. ComfyUI's --disable-metadata leaves all "
        "of it out.",
    ),
    Difference(
        "safety",
        "CompVis' checker flags, Falconsai's classifier may overrule. Flagged images are left "
        "out; none left is an error.",
        "The same networks and rule. Images can be blacked out, blurred or only reported instead.",
    ),
)
