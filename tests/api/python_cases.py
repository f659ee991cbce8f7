"""What people do alike with every replicate for Python; see `script.py`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from api.script import Script, Setting, files

shared = Script()
case = shared.case


@case
def run_version(s: Setting) -> Any:
    return files(s.client.run(f"acme/flux:{s.version}", input=s.quick()))


@case
def run_model(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.quick()))


@case
def run_wait_5(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.quick(), wait=5))


@case
def run_wait_too_short(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.slow(), wait=1))


@case
def run_poll(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.quick(), wait=False))


@case
def run_two(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.quick(num_outputs=2, output_format="png")))


@case
def run_chunks(s: Setting) -> Any:
    (output,) = s.client.run("acme/flux", input=s.quick())
    return files([io.BytesIO(b"".join(output))])


@case
def run_plain(s: Setting) -> Any:
    output = s.client.run("acme/flux", input=s.quick(), use_file_output=False)
    return [text[:23] for text in output]


@case
def run_failed(s: Setting) -> Any:
    s.client.run("acme/broken", input=s.quick())


@case
def file_handle(s: Setting) -> Any:
    with Path(s.image).open("rb") as file:
        return files(s.client.run("acme/flux", input=s.quick(image=file)))


@case
def file_path(s: Setting) -> Any:
    return files(s.client.run("acme/flux", input=s.quick(image=Path(s.image))))


@case
def error_no_version(s: Setting) -> Any:
    s.client.predictions.create(version="b" * 64, input=s.quick())


@case
def error_bare_version(s: Setting) -> Any:
    s.client.run(s.version, input=s.quick())
