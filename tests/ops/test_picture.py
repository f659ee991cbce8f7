"""Input pictures and masks against Pillow's own operations, in the hosted model's order."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from flux_hotswap.errors import ImageError
from flux_hotswap.ops.picture import (
    decode_mask,
    decode_picture,
    grid_mask,
    is_placeholder,
    mask_warning,
    resize_picture,
)
from flux_hotswap.ops.picture_file import upright_size


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values[..., 0] if channels == 1 else values)


def to_bytes(image: torch.Tensor) -> np.ndarray:
    return (image[0] * 255).round().to(torch.uint8).numpy()


# --- decoding -----------------------------------------------------------------------------------


def test_rgb_comes_as_it_is() -> None:
    picture = noise(7, 5)
    tensor = decode_picture(encoded(picture), "image")
    assert tensor.shape == (1, 5, 7, 3)
    assert tensor.dtype == torch.float32
    assert (to_bytes(tensor) == np.asarray(picture)).all()


def test_alpha_lies_on_white() -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (10, 20, 30, 255))
    assert to_bytes(decode_picture(encoded(picture), "image")).tolist() == [
        [[255, 255, 255], [10, 20, 30]]
    ]


def test_half_transparent_black_is_grey() -> None:
    picture = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert to_bytes(decode_picture(encoded(picture), "image")).tolist() == [[[127] * 3]]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.full((1, 1), 65535, np.uint16)), 255),
        (Image.fromarray(np.full((1, 1), 32896, np.uint16)), 128),
        (Image.fromarray(np.full((1, 1), 257, np.uint16)), 1),
        (Image.new("L", (1, 1), 77), 77),
        (Image.new("1", (1, 1), 1), 255),
    ],
    ids=["16 bit white", "16 bit middle", "16 bit one step", "grey", "one bit"],
)
def test_greys_keep_their_value(image: Image.Image, expected: int) -> None:
    data = encoded(image)
    assert to_bytes(decode_picture(data, "image")).tolist() == [[[expected] * 3]]
    assert (decode_mask(data, "mask") * 255).round().tolist() == [[[expected]]]


def test_a_palette_with_transparency_lies_on_white() -> None:
    picture = Image.new("P", (1, 1), 3)
    picture.putpalette([0, 0, 0] * 256)
    tensor = decode_picture(encoded(picture, transparency=3), "image")
    assert to_bytes(tensor).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(orientation: int) -> None:
    from PIL import ImageOps

    picture = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert (to_bytes(decode_picture(data, "image")) == np.asarray(expected)).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert to_bytes(decode_picture(data, "image"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture"),
        (b"<html>", "not a picture"),
        (encoded(noise(64, 64))[:30], r"cannot be read .its head is damaged.; save it again"),
        (encoded(noise(64, 64), "JPEG")[:400], "cannot be read"),
    ],
    ids=["empty", "web page", "cut png", "cut jpeg"],
)
def test_what_is_no_picture_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=f"photo: {message}"):
        decode_picture(data, "photo")
    with pytest.raises(ImageError, match=f"photo: {message}"):
        decode_mask(data, "photo")


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="too large"):
        decode_picture(encoded(noise(64, 64)), "image")


# --- what people and strangers have -------------------------------------------------------------


def load_image(data: bytes) -> np.ndarray:
    """What ComfyUI's Load Image makes of a file, alpha aside."""
    for lenient in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
            try:
                return np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))
            except (OSError, ValueError):
                if lenient:
                    raise
    raise AssertionError


def with_text(size: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "y" * size, zip=True)
    return encoded(noise(40, 30), pnginfo=info)


EXIF = Image.Exif()
EXIF[0x0112] = 6
BROKEN = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
HALF = len(encoded(noise(64, 64), "JPEG")) // 2


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (with_text(2 * 2**20), False),
        (with_text(100), False),
        (encoded(noise(40, 30), "JPEG", exif=BROKEN), False),
        (encoded(noise(40, 30), "PNG", exif=EXIF), False),
        (encoded(noise(64, 64), "JPEG")[:HALF], True),
        (encoded(noise(64, 64), "JPEG", progressive=True)[:HALF], True),
        (encoded(noise(64, 64))[:HALF], True),
        (encoded(noise(64, 64), "GIF")[:HALF], True),
        (encoded(noise(64, 64), "BMP")[:HALF], True),
        (encoded(noise(64, 64), "TIFF")[:-500], True),
        (encoded(noise(40, 30), "TIFF", tiffinfo={0x0112: 6})[:-500], True),
        (encoded(noise(64, 64), "WEBP"), False),
        (encoded(noise(64, 64), "TIFF", compression="tiff_lzw"), False),
    ],
    ids=[
        "large text", "small text", "broken exif", "exif", "cut jpeg", "cut progressive jpeg",
        "cut png", "cut gif", "cut bmp", "cut tiff", "cut turned tiff", "webp", "packed tiff",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_load_image_opens_is_opened(data: bytes, told: bool) -> None:
    told_about: list[str] = []
    found = to_bytes(decode_picture(data, "image", warn=told_about.append))
    assert (found == load_image(data)).all()
    assert bool(told_about) == told
    assert all("image: the file is damaged or cut short" in text for text in told_about)
    decode_mask(data, "mask")
    assert upright_size(data) == (found.shape[1], found.shape[0])


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(8, 8), "EPS"),
        encoded(noise(8, 8), "PPM"),
        encoded(noise(8, 8), "TGA"),
        encoded(noise(8, 8), "ICO"),
        encoded(noise(8, 8), "PDF"),
        b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x08\0\0\0\x08\0\x08\0\3" + bytes(300),
        b"\xd7\xcd\xc6\x9a" + bytes(100),
        b"SIMPLE  =                    T" + bytes(3000),
        b"RIFF\x10\0\0\0WAVEfmt ",
    ],
    ids=["eps", "ppm", "tga", "ico", "pdf", "psd", "wmf", "fits", "wave"],
)
def test_no_other_format_is_opened(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *args, **_: started.append(args))
    with pytest.raises(ImageError, match="not a picture; give a PNG, JPEG, WebP, GIF, BMP or"):
        decode_picture(data, "image")
    assert started == []


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_kept_smaller_is_what_the_latent_would_see(
    turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shrunk while it is read or later: the same pixels."""
    data = encoded(noise(100, 50), "PNG", **({"exif": EXIF} if turned else {}))
    size = (16, 32) if turned else (32, 16)
    late = resize_picture(decode_picture(data, "image"), *size)
    mask = grid_mask(decode_mask(data, "mask"), *size)
    monkeypatch.setattr("flux_hotswap.ops.picture.KEPT", 1000)
    monkeypatch.setattr("flux_hotswap.ops.picture.SHRUNK", 900)
    assert torch.equal(decode_picture(data, "image", fit=size), late)
    assert torch.equal(grid_mask(decode_mask(data, "mask", fit=size), *size), mask)
    small = decode_picture(data, "image")
    assert small.shape[1] * small.shape[2] <= 900


@pytest.mark.parametrize("width", [1, 7, 64, 1001])
def test_strips_join_without_a_seam(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(width, 203, 4)
    data = encoded(picture)
    whole = decode_picture(data, "image"), decode_mask(data, "mask")
    monkeypatch.setattr("flux_hotswap.ops.picture_file._STRIP", 500)
    monkeypatch.setattr("flux_hotswap.ops.picture._ROWS", 500)
    assert torch.equal(decode_picture(data, "image"), whole[0])
    assert torch.equal(decode_mask(data, "mask"), whole[1])
    assert (to_bytes(resize_picture(whole[0], width, 203)) == to_bytes(whole[0])).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_very_large_pictures_come_at_a_part_of_their_size(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = Image.linear_gradient("L").resize((99, 60)).convert("RGB")
    data = encoded(smooth, kind)
    monkeypatch.setattr("flux_hotswap.ops.picture_file.COPIED", 1000)
    found = decode_picture(data, "image")
    height, width = (15, 25) if kind == "JPEG" else (20, 33)  # its decoder halves it first
    assert found.shape == (1, height, width, 3)
    average = np.asarray(smooth.resize((width, height), Image.Resampling.BOX)) / 255
    assert np.abs(found[0].numpy() - average).max() < 0.06
    assert decode_mask(data, "mask").shape == (1, height, width)


# --- sizing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 16), (112, 64), (48, 80)])
def test_resizing_is_pillows_lanczos(size: tuple[int, int]) -> None:
    picture = noise(100, 50)
    tensor = decode_picture(encoded(picture), "image")
    before = tensor.clone()
    resized = resize_picture(tensor, *size)
    assert (to_bytes(resized) == np.asarray(picture.resize(size, Image.Resampling.LANCZOS))).all()
    assert resized.shape == (1, size[1], size[0], 3)
    assert torch.equal(tensor, before)


def test_the_right_size_is_left_alone() -> None:
    picture = noise(32, 16)
    tensor = decode_picture(encoded(picture), "image")
    assert torch.equal(resize_picture(tensor, 32, 16), tensor)


def test_only_the_first_of_a_batch_counts() -> None:
    batch = torch.rand(3, 16, 16, 3)
    assert torch.equal(resize_picture(batch, 16, 16), resize_picture(batch[:1], 16, 16))


def test_alpha_and_grey_of_a_connected_picture() -> None:
    rgba = torch.zeros(1, 2, 2, 4)
    assert (resize_picture(rgba, 2, 2) == 1).all()
    grey = torch.full((1, 2, 2, 1), 0.2)
    assert resize_picture(grey, 2, 2).flatten().tolist() == pytest.approx([0.2] * 12, abs=1e-6)


def test_values_outside_0_to_1_are_clamped_and_nan_is_0() -> None:
    odd = torch.tensor([-1.0, 2.0, float("nan")]).view(1, 1, 1, 3)
    assert resize_picture(odd, 1, 1).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 2, 2), (1, 0, 2, 3), (1, 2, 2, 5)])
def test_what_is_no_picture_tensor_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="image: give the shape"):
        resize_picture(torch.zeros(shape), 16, 16)


# --- masks --------------------------------------------------------------------------------------


def cells(mask: Image.Image, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return grid_mask(decode_mask(encoded(mask), "mask"), *size)[0].numpy()


def painted(
    x: int, y: int, right: int, bottom: int, colour: str | tuple[int, ...] = "white"
) -> Image.Image:
    mask = Image.new("RGB", (64, 64))
    mask.paste(colour, (x, y, right, bottom))
    return mask


def test_a_square_between_the_grid_points_vanishes() -> None:
    assert not cells(painted(9, 9, 16, 16)).any()


def test_one_pixel_on_the_grid_is_a_whole_cell() -> None:
    found = cells(painted(32, 32, 33, 33))
    assert found[4, 4] == 1
    assert found.sum() == 1


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((127,) * 3, 0),
        ((128,) * 3, 1),
        ((255, 0, 0), 0),
        ((0, 255, 0), 1),
        ((0, 0, 255), 0),
        ((255, 255, 0), 1),
        ((255, 0, 255), 0),
    ],
    ids=["127", "128", "red", "green", "blue", "yellow", "magenta"],
)
def test_the_threshold(colour: tuple[int, ...], expected: int) -> None:
    found = cells(painted(40, 40, 48, 48, colour=colour))
    assert found.sum() == expected
    assert found[5, 5] == expected


@pytest.mark.parametrize("size", [(16, 16), (48, 32), (112, 64)])
def test_another_size_is_brought_there_as_hosted(size: tuple[int, int]) -> None:
    mask = noise(37, 53, seed=4)
    hosted = mask.convert("RGB").resize(size, Image.Resampling.NEAREST).convert("L")
    expected = (np.asarray(hosted) / 255 >= 0.5)[::8, ::8]
    assert (cells(mask, size) == expected).all()


def test_alpha_of_a_mask_means_nothing() -> None:
    mask = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    assert cells(mask, (16, 16)).all()


def test_a_mask_without_batch_axis() -> None:
    assert grid_mask(torch.ones(16, 16), 16, 16).shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (1, 0, 4)])
def test_what_is_no_mask_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="mask: give the shape"):
        grid_mask(torch.zeros(shape), 16, 16)


@pytest.mark.parametrize(
    ("mask", "warning"),
    [
        (Image.new("L", (64, 64), 127), "all black"),
        (painted(9, 9, 16, 16), "8 pixel grid"),
        (painted(8, 8, 9, 9), ""),
    ],
    ids=["black", "between the grid points", "on the grid"],
)
def test_the_warning_says_what_is_odd(mask: Image.Image, warning: str) -> None:
    tensor = decode_mask(encoded(mask), "mask")
    found = mask_warning(tensor, grid_mask(tensor, 64, 64))
    assert (warning in found) if warning else found == ""


@pytest.mark.parametrize(
    ("mask", "size", "expected"),
    [
        (torch.zeros(1, 64, 64), (96, 96), True),
        (torch.zeros(1, 64, 64), None, True),
        (torch.zeros(1, 64, 64), (64, 64), False),
        (torch.zeros(1, 32, 64), (96, 96), False),
        (torch.ones(1, 64, 64), (96, 96), False),
    ],
    ids=["no mask drawn", "no picture either", "a picture of that size", "other size", "painted"],
)
def test_load_images_empty_mask_is_known(
    mask: torch.Tensor, size: tuple[int, int] | None, expected: bool
) -> None:
    assert is_placeholder(mask, size) is expected
