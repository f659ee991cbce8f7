"""Requests as hypothesis draws them: any object is a request or is refused, any request plans."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux_hotswap.errors import RequestError, shorten
from flux_hotswap.prediction.plan import make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.sizes import GRID
from flux_hotswap.prediction.spec import FIELD, FIELDS, Field, Kind

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KEYS = st.sampled_from([*FIELD, "replicate_weights", "lora_weights"]) | st.text()


def in_range(field: Field) -> st.SearchStrategy[Any]:
    if field.kind is Kind.BOOLEAN:
        return st.booleans()
    if field.kind is Kind.ENUM:
        return st.sampled_from(field.choices)
    if field.kind in (Kind.STRING, Kind.URI):
        return st.text()
    assert field.minimum is not None
    assert field.maximum is not None
    if field.kind is Kind.INTEGER:
        return st.integers(int(field.minimum), int(field.maximum))
    return st.floats(field.minimum, field.maximum)


VALID = st.fixed_dictionaries(
    {"prompt": st.text()},
    optional={field.name: st.none() | in_range(field) for field in FIELDS if not field.required},
)


@given(st.dictionaries(KEYS, JSON_VALUES, max_size=6))
@example({"prompt": "a", "seed": 10**4000})
@example({"prompt": [[[]]]})
def test_any_object_parses_or_is_refused(raw: dict[str, Any]) -> None:
    try:
        request = parse_request(raw)
    except RequestError as error:
        assert error.field in raw or error.field == "prompt"
        assert str(error).startswith((error.field, shorten(error.field)))
        assert len(str(error).splitlines()) == 1
    else:
        assert request.prompt == raw["prompt"]


@given(VALID, st.none() | st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)))
@example({"prompt": "", "prompt_strength": 0.0}, (1, 1))
@example({"prompt": "", "prompt_strength": 5e-324}, (20_000, 1))
@example({"prompt": "", "aspect_ratio": "custom", "width": 1440, "height": 256}, None)
def test_any_valid_request_plans(raw: dict[str, Any], image: tuple[int, int] | None) -> None:
    request = parse_request(raw)
    mask = request.mask is not None
    needs_size = request.aspect_ratio == "custom" and None in (request.width, request.height)
    if image is None and (mask or needs_size):
        with pytest.raises(RequestError) as caught:
            make_plan(request, seed=1, mask=mask)
        assert caught.value.field in ("mask", "width", "height")
        return
    plan = make_plan(request, seed=1, image=image, mask=mask)
    for side in plan.size:
        assert side % GRID == 0
        assert GRID <= side <= (1440 if image or request.aspect_ratio == "custom" else 1536)
    assert len(plan.sigmas) == plan.steps + 1
    assert plan.steps + plan.start_step == request.num_inference_steps
    assert plan.sigmas[0] <= 1
    assert plan.sigmas[-1] == 0
    assert all(high > low for high, low in zip(plan.sigmas, plan.sigmas[1:], strict=False))
    assert json.loads(json.dumps(plan.to_dict()))["sigmas"] == list(plan.sigmas)
