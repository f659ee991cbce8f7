"""`dev.py plan`: print the plan of a request as JSON and run nothing."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..errors import HotswapError, ImageError, RequestError, shorten
from ..prediction.data_uri import is_data_uri, read_data_uri
from ..prediction.plan import Plan, make_plan
from ..prediction.request import Request, parse_request, unwrap
from ..prediction.spec import RANDOM_SEED_LIMIT

_PLAN_KEYS = (
    "width", "height", "num_outputs", "mode", "route", "route_reason", "steps", "start_step",
    "sigmas", "seed", "guidance", "t5_length", "loras", "output_format", "output_quality",
    "safety_checker", "warnings",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a request that cannot be planned."""
    parser = argparse.ArgumentParser(
        prog="dev.py plan", description="Print the plan of a request as JSON; nothing is run."
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="request.json in the schema's field names, - for standard input",
    )
    arguments = parser.parse_args(argv)
    try:
        plan = plan_request(read_request(arguments.input))
    except HotswapError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    values = plan.to_dict()
    json.dump({key: values[key] for key in _PLAN_KEYS}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


def read_request(path: str) -> dict[str, Any]:
    """Return the fields in the JSON file at path, or on standard input for "-".

    Raises:
        RequestError: no such file, not JSON, or not an object.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        # Windows editors put a byte order mark at the start of a file.
        raw: object = json.loads(text.removeprefix("\ufeff"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            "--input", path, "give a JSON file with the fields of a request", str(error)
        ) from error
    if not isinstance(raw, dict):
        raise RequestError("--input", raw, 'give a JSON object such as {"prompt": "a cat"}')
    return dict(unwrap(cast("dict[str, Any]", raw)))


def plan_request(raw: dict[str, Any]) -> Plan:
    """Plan a request, drawing a seed if it names none and measuring its image."""
    request = parse_request(raw)
    return make_plan(
        request,
        seed=secrets.randbelow(RANDOM_SEED_LIMIT),
        image=_measure(request),
        mask=request.mask is not None,
    )


def _measure(request: Request) -> tuple[int, int] | None:
    if request.image is None:
        return None
    from ..ops.picture_file import upright_size  # wants Pillow, which a plan without image does not

    return upright_size(_image_bytes(request.image))


def _image_bytes(source: str) -> bytes:
    try:
        if is_data_uri(source):
            return read_data_uri(source)
        scheme = urlsplit(source).scheme.lower()
        if scheme not in ("http", "https"):
            path = url2pathname(urlsplit(source).path) if scheme == "file" else source
            return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(
            f"image: {shorten(source)} cannot be read ({reason}); give a file or a data: URI"
        ) from error
    raise ImageError(
        "image: a plan needs the picture's size and fetches nothing; "
        "give a local file or a data: URI"
    )


if __name__ == "__main__":
    sys.exit(main())
