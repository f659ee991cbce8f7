"""replicate 1.0.7 for Python, unchanged, against our API."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from runtime.environment import ROOT, VENV, venv_python

from api import checks
from api.checks import COMMON, IMAGES, Check, pictures, pixels, raises, refuses
from api.site import Said, Site, bad_requests

SCRIPT = Path(__file__).with_name("python1_cases.py")
ERROR = "ReplicateError"


def lora_draws(said: Said) -> None:
    """The model's name draws what its LoRA named in the request does."""
    plain, asked, named = (pixels(base64.b64decode(each["data"])) for each in said.given)
    assert plain != asked
    assert asked == named


CHECKS: dict[str, Check] = {
    **COMMON,
    **checks.errors({401: ERROR, 404: ERROR, 429: ERROR}),
    "run_async": pictures(),
    "run_base_with_v1": pictures(),
    "run_default_client": pictures(),
    "run_failed": raises("ModelError", None, "missing.safetensors"),
    "lora_is_the_name": lora_draws,
    "latest_version": checks.of_model,
    "progress": checks.rising,
    "file_handle": IMAGES,
    "file_path": IMAGES,
    "file_base64": IMAGES,
    "stream": checks.streamed,
    "stream_of_prediction": checks.streamed,
    "error_bare_version": raises("ValueError"),
    "error_not_allowed": raises(ERROR, 403, "somebody/model"),
}
CHECKS |= {f"bad: {name}": refuses(name, ERROR) for name, _ in bad_requests()}


@pytest.fixture(scope="module")
def said(site: Site) -> dict[str, Said]:
    env = {"PYTHONPATH": str(ROOT / "tests"), "REPLICATE_BASE_URL": site.open.url}
    return site.say([venv_python(VENV), SCRIPT], env)


@pytest.mark.parametrize("case", CHECKS)
def test_case(case: str, said: dict[str, Said]) -> None:
    CHECKS[case](said[case])


def test_every_case_is_checked(said: dict[str, Said]) -> None:
    assert set(said) == set(CHECKS)
