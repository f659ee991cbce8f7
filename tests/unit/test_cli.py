"""`dev.py plan`: JSON out, one clear line for a bad request, nothing heavy imported."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_hotswap.tools import plan as cli

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (
    [sys.executable, "dev.py", "plan"]
    if (ROOT / "dev.py").exists()
    else [
        sys.executable,
        "-c",
        "import sys; from flux_hotswap.tools.plan import main; sys.exit(main())",
    ]
)
KEYS = [
    "width", "height", "num_outputs", "mode", "route", "route_reason", "steps", "start_step",
    "sigmas", "seed", "guidance", "t5_length", "loras", "output_format", "output_quality",
    "safety_checker", "warnings",
]  # fmt: skip


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        input=stdin,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def plan_of(text: str, capsys: pytest.CaptureFixture[str], where: Path) -> dict[str, Any]:
    """Return what the command prints for a request, run in this process."""
    where.write_text(text, encoding="utf-8")
    assert cli.main(["--input", str(where)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refusal_of(text: str, capsys: pytest.CaptureFixture[str], where: Path) -> str:
    """Return the line the command prints for a bad request, run in this process."""
    where.write_text(text, encoding="utf-8")
    assert cli.main(["--input", str(where)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    return err.removesuffix("\n")


def picture(kind: str = "PNG", size: tuple[int, int] = (640, 427), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "request.json"


# As a command


def test_plan(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    request = {"prompt": "a caf\u00e9", "seed": 42, "lora": "owner/name", "num_outputs": 2}
    path.write_text(json.dumps(request), encoding="utf-8")
    done = run("--input", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert list(plan) == KEYS
    sigmas = plan.pop("sigmas")
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (29, 1, 0)
    assert plan == {
        "width": 1024,
        "height": 1024,
        "num_outputs": 2,
        "mode": "txt2img",
        "route": "fast",
        "route_reason": "go_fast",
        "steps": 28,
        "start_step": 0,
        "seed": 42,
        "guidance": 3,
        "t5_length": 512,
        "loras": [
            {
                "source": "owner/name",
                "scale": 1,
                "strength": 1.5,
                "multiplier": 1.5,
                "arrival": "hosted",
                "field": "lora",
            }
        ],
        "output_format": "webp",
        "output_quality": 80,
        "safety_checker": True,
        "warnings": [],
    }


def test_standard_input_and_drawn_seeds() -> None:
    seeds: list[int] = []
    for _ in range(3):
        done = run("--input", "-", stdin='{"prompt": "a cat"}')
        assert (done.returncode, done.stderr) == (0, "")
        seeds.append(json.loads(done.stdout)["seed"])
    assert len(set(seeds)) == 3  # fails by chance once in a billion runs
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_bad_request() -> None:
    done = run("--input", "-", stdin='{"prompt": "a cat", "num_outputs": 5}')
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "num_outputs: 5 is not allowed; give a whole number from 1 to 4\n"


def test_no_traceback_for_what_is_not_unicode() -> None:
    done = run("--input", "-", stdin='{"prompt": "a cat", "\\ud800": 1, "seed": 1}')
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_heavy_is_imported() -> None:
    """A plan must answer at once: its imports are read from Python's own import log."""
    done = run("--input", "-", stdin='{"prompt": "a cat"}', PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "flux_hotswap.prediction.plan" in names
    top = {name.partition(".")[0] for name in names}
    assert not top & {"torch", "numpy", "PIL", "comfy", "transformers", "requests", "ops", "nodes"}


def test_input_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2
    assert "--input" in capsys.readouterr().err


# Pictures


@pytest.mark.parametrize(
    ("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".dat")]
)
def test_image_file(
    kind: str, suffix: str, where: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = where.with_name(f"a picture \u00fc{suffix}")
    path.write_bytes(picture(kind))
    plan = plan_of(json.dumps({"prompt": "", "image": str(path)}), capsys, where)
    assert (plan["width"], plan["height"]) == (640, 432)
    assert (plan["mode"], plan["route"], plan["route_reason"]) == ("img2img", "bf16", "image input")
    assert (plan["steps"], plan["start_step"], len(plan["sigmas"])) == (23, 5, 24)


def test_file_link(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = where.with_name("a picture.png")
    path.write_bytes(picture())
    plan = plan_of(json.dumps({"prompt": "", "image": path.as_uri()}), capsys, where)
    assert (plan["width"], plan["height"]) == (640, 432)


def test_turned_photo(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = where.with_name("photo.jpg")
    path.write_bytes(picture("JPEG", (1920, 1080), exif=exif))
    plan = plan_of(json.dumps({"prompt": "", "image": str(path)}), capsys, where)
    assert (plan["width"], plan["height"]) == (816, 1440)


def test_mask(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = where.with_name("picture.png")
    path.write_bytes(picture())
    request = {"prompt": "", "image": str(path), "mask": "mask.png", "go_fast": False}
    plan = plan_of(json.dumps(request), capsys, where)
    assert (plan["mode"], plan["route_reason"]) == ("inpaint", "go_fast off")


BASE64 = base64.b64encode(picture()).decode()
PERCENT = "".join(f"%{byte:02x}" for byte in picture())


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;charset=utf-8;BASE64,{BASE64}",
        f"data:;base64,{BASE64.replace('=', '%3D').replace('+', '%2B').replace('/', '%2F')}",
        f"data:image/png,{PERCENT}",
    ],
    ids=["base64", "capitals", "percent in base64", "percent"],
)
def test_data_uri(uri: str, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(json.dumps({"prompt": "", "image": uri}), capsys, where)
    assert (plan["width"], plan["height"]) == (640, 432)


def test_no_step(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = {
        "prompt": "",
        "image": f"data:;base64,{BASE64}",
        "prompt_strength": 0,
        "model": "schnell",
        "num_inference_steps": 4,
    }
    plan = plan_of(json.dumps(request), capsys, where)
    assert (plan["steps"], plan["start_step"], plan["sigmas"]) == (0, 4, [0])
    assert plan["guidance"] is None
    assert len(plan["warnings"]) == 1


# Refusals


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"prompt": "a", "promt": 1}', "promt: no such field; did you mean prompt?"),
        ("{}", "prompt: is missing; give text"),
        (
            '{"prompt": "a", "aspect_ratio": "custom", "width": 512}',
            "height: is missing, and aspect_ratio is custom; give both width and height, "
            "from 256 to 1440, or another aspect_ratio",
        ),
        (
            '{"prompt": "a", "mask": "m.png"}',
            "mask: needs an image; give the image it belongs to, or leave it out",
        ),
        (
            '{"prompt": "a", "guidance_scale": NaN}',
            "guidance_scale: nan is not allowed; give a number from 0 to 10",
        ),
        (
            '{"prompt": "a", "guidance_scale": Infinity}',
            "guidance_scale: inf is not allowed; give a number from 0 to 10",
        ),
        (
            '{"prompt": "a", "megapixels": 1}',
            'megapixels: 1 is not allowed; choose one of "1", "0.25"',
        ),
        (
            '{"prompt": "a", "seed": -1}',
            "seed: -1 is not allowed; give a whole number from 0 to 18446744073709551615",
        ),
        (
            '{"prompt": "a", "model": "a\\nb"}',
            'model: \'a\\nb\' is not allowed; choose one of "dev", "schnell"',
        ),
        ("[1]", '--input: [1] is not allowed; give a JSON object such as {"prompt": "a cat"}'),
        ("null", '--input: None is not allowed; give a JSON object such as {"prompt": "a cat"}'),
    ],
)
def test_refusal(text: str, line: str, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal_of(text, capsys, where) == line


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'prompt': 1}", '{"prompt": "a"} x', '{"prompt": "a", "seed": ' + "9" * 5000 + "}"],
    ids=["empty", "cut", "quotes", "more", "endless number"],
)
def test_not_json(text: str, where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal_of(text, capsys, where)
    assert line.startswith("--input: ")
    assert line.endswith("; give a JSON file with the fields of a request")


def test_not_text(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where.write_bytes(b'{"prompt": "\xff"}')
    assert cli.main(["--input", str(where)]) == 2
    assert re.fullmatch(r"--input: .*utf-8.*\n", capsys.readouterr().err)


def test_no_such_file(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--input", str(where)]) == 2
    assert re.fullmatch(r"--input: .*No such file.*\n", capsys.readouterr().err)


def test_byte_order_mark(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Windows editors put one at the start of a file."""
    assert plan_of('\ufeff{"prompt": "a"}', capsys, where)["steps"] == 28


def test_the_body_of_a_hosted_call(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = '{"prompt": "a", "seed": 5, "image": null, "lora_weights": "a/b"}'
    plan = plan_of(f'{{"input": {fields}, "version": "1"}}', capsys, where)
    assert plan == plan_of(fields, capsys, where)
    assert (plan["seed"], plan["mode"]) == (5, "txt2img")
    assert [lora["source"] for lora in plan["loras"]] == ["a/b"]


@pytest.mark.parametrize(
    "key",
    ["a\nb", "a\rb", "\n", "a\u2028b", "\x1b[31m", "", "x" * 10_000],
    ids=["line feed", "return", "only a line feed", "line separator", "escape", "empty", "long"],
)
def test_unknown_field_stays_on_one_line(
    key: str, where: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal_of(json.dumps({"prompt": "a", key: 1}), capsys, where)
    assert re.match(r"\S.*: no such field; ", line)
    assert line.isprintable()
    assert len(line) < 1000


def test_deeply_nested(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert re.match("(--input|prompt): ", refusal_of(text, capsys, where))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("https://example.com/a.png", "give a local file or a data: URI"),
        ("HTTP://example.com/a.png", "give a local file or a data: URI"),
        ("no such picture.png", "cannot be read"),
        ("a\0b.png", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("http://[::1", "give a"),
        ("//[a", "give a"),
        ("data:image/png;base64", "needs a comma"),
        ("data:image/png;base64,!!!!", "broken base64"),
        ("data:image/png;base64,AAAAA", "broken base64"),
        ("data:image/png;base64,", "give a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        ("data:,hello", "give a PNG, JPEG, WebP, GIF, BMP or TIFF"),
        ("data:image/png;base64,iVBORw0KGgo=", "save it again"),
        ("ftp://example.com/a.png", "give a"),
        ("file:///no/such/picture.png", "cannot be read"),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_image_that_cannot_be_measured(
    image: str, says: str, where: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal_of(json.dumps({"prompt": "a", "image": image}), capsys, where)
    assert line.startswith("image: ")
    assert says in line
    assert line.isprintable()
    assert len(line) < 1000


def test_a_folder_is_no_picture(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = json.dumps({"prompt": "a", "image": str(where.parent)})
    line = refusal_of(request, capsys, where)
    assert line.startswith("image: ")
    assert "cannot be read" in line
