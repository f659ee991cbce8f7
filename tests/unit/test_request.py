"""Parsing: what is accepted as a request, what is refused, and how the refusal reads."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from flux_hotswap.errors import HotswapError, RequestError, shorten
from flux_hotswap.prediction.request import Request, check_value, parse_request
from flux_hotswap.prediction.spec import FIELD, FIELDS, Field, Kind

DATA = Path(__file__).parent / "data"
SCHEMA: list[dict[str, Any]] = json.loads((DATA / "schema.json").read_text(encoding="utf-8"))[
    "input"
]
CONTRACT = {row["name"]: row for row in SCHEMA}
NUMBERS = [field for field in FIELDS if field.kind in (Kind.INTEGER, Kind.NUMBER)]
SEED_MAX = 2**64 - 1


def parsed(**values: object) -> Request:
    return parse_request({"prompt": "a cat", **values})


def refusal(name: str, value: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_request({"prompt": "a cat", name: value})
    return caught.value


# The contract


def test_names_and_order() -> None:
    names = list(CONTRACT)
    names.insert(names.index("lora_scale"), "lora")
    assert [field.name for field in FIELDS] == names
    assert list(FIELD) == names
    assert [field.name for field in fields(Request)] == names


@pytest.mark.parametrize("name", CONTRACT)
def test_field_equals_contract(name: str) -> None:
    field, row = FIELD[name], CONTRACT[name]
    assert field.kind.value == row["type"]
    assert field.required == row["required"]
    assert field.default == row["default"]
    assert type(field.default) is type(row["default"])
    assert list(field.choices) == row.get("choices", [])
    if name != "seed":
        assert (field.minimum, field.maximum) == (row.get("minimum"), row.get("maximum"))


def test_fields_beyond_the_contract() -> None:
    assert (FIELD["seed"].minimum, FIELD["seed"].maximum) == (0, SEED_MAX)
    lora = FIELD["lora"]
    assert (lora.kind, lora.required, lora.default) == (Kind.STRING, False, None)


def test_defaults() -> None:
    defaults = {row["name"]: row["default"] for row in SCHEMA}
    assert asdict(parse_request({"prompt": ""})) == defaults | {"prompt": "", "lora": None}


def test_null_is_not_given() -> None:
    nulls: dict[str, Any] = dict.fromkeys(FIELD)
    assert parse_request(nulls | {"prompt": "a cat"}) == parsed()


def test_request_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(parsed(), "seed", 1)  # noqa: B010


def test_a_request_is_made_by_names() -> None:
    """Many of its values are of one type, and in another order they would mean something else."""
    request: Any = Request
    assert request(**asdict(parsed())) == parsed()
    with pytest.raises(TypeError, match="positional"):
        request(*asdict(parsed()).values())


@pytest.mark.parametrize("raw", [{}, {"prompt": None}, {"seed": 1}], ids=json.dumps)
def test_prompt_is_required(raw: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"^prompt: is missing; give text$") as caught:
        parse_request(raw)
    assert caught.value.field == "prompt"


# Accepted


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("prompt", "  ", "  "),
        ("prompt", "(a:1.3) [b] \u4e2d\n", "(a:1.3) [b] \u4e2d\n"),
        ("image", "", None),
        ("image", " \t\n", None),
        ("image", "cat.png", "cat.png"),
        ("image", " my cat.png\n", "my cat.png"),
        ("image", "\tdata:image/png;base64,AAAA\r\n", "data:image/png;base64,AAAA"),
        ("mask", " https://a.example/m.png ", "https://a.example/m.png"),
        ("mask", " ", None),
        ("lora", "", None),
        ("lora", "owner/name", "owner/name"),
        ("extra_lora", "", None),
        ("num_inference_steps", 28.0, 28),
        ("height", 256.0, 256),
        ("seed", 0, 0),
        ("seed", SEED_MAX, SEED_MAX),
        ("seed", 1e3, 1000),
        ("guidance_scale", 3, 3),
        ("guidance_scale", 2.5, 2.5),
        ("lora_scale", -1, -1),
        ("go_fast", False, False),
        ("disable_safety_checker", True, True),
        ("megapixels", "0.25", "0.25"),
        ("aspect_ratio", "custom", "custom"),
    ],
)
def test_accepted(name: str, value: object, held: object) -> None:
    got = getattr(parsed(**{name: value}), name)
    assert got == held
    assert type(got) is type(held)


def test_the_body_of_a_hosted_call() -> None:
    fields = {"prompt": "a cat", "lora_weights": "owner/name", "image": None}
    assert parse_request({"input": fields, "version": "1234"}) == parse_request(fields)
    with pytest.raises(RequestError, match=r"^seed: ") as caught:
        parse_request({"input": fields | {"seed": -1}})
    assert caught.value.field == "seed"


@pytest.mark.parametrize("value", ["a cat", None, [], 5], ids=repr)
def test_an_input_that_is_no_object_is_no_field(value: object) -> None:
    with pytest.raises(RequestError, match=r"^input: no such field") as caught:
        parse_request({"prompt": "a cat", "input": value})
    assert caught.value.field == "input"


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_both_ends_of_a_range(field: Field) -> None:
    for value in (field.minimum, field.maximum):
        assert getattr(parsed(**{field.name: value}), field.name) == value


@pytest.mark.parametrize(("end", "value"), [("minimum", -1e300), ("maximum", 1e300)])
def test_a_range_may_be_open(end: str, value: float) -> None:
    assert check_value(replace(FIELD["lora_scale"], **{end: None}), value) == value


@pytest.mark.parametrize(
    ("name", "choice"), [(field.name, choice) for field in FIELDS for choice in field.choices]
)
def test_every_choice(name: str, choice: str) -> None:
    assert getattr(parsed(**{name: choice}), name) == choice


@pytest.mark.parametrize("alias", ["replicate_weights", "lora_weights"])
def test_alias(alias: str) -> None:
    assert parsed(**{alias: "owner/name"}) == parsed(lora="owner/name")


@pytest.mark.parametrize("pair", [("lora", "lora_weights"), ("replicate_weights", "lora_weights")])
def test_alias_beside_a_null(pair: tuple[str, str]) -> None:
    assert parsed(**{pair[0]: None, pair[1]: "owner/name"}).lora == "owner/name"


# Refused


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("side", ["below", "above"])
def test_out_of_range(field: Field, side: str) -> None:
    assert field.minimum is not None
    assert field.maximum is not None
    step = 1 if field.kind is Kind.INTEGER else 1e-9
    value = field.minimum - step if side == "below" else field.maximum + step
    error = refusal(field.name, value)
    assert (error.field, error.value) == (field.name, value)
    assert f"from {field.minimum} to {field.maximum}" in str(error)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize(
    "value",
    ["28", "", "1.0", "nan", True, False, math.nan, math.inf, -math.inf, [1], {"a": 1}],
    ids=repr,
)
def test_not_a_number(field: Field, value: object) -> None:
    error = refusal(field.name, value)
    assert error.field == field.name
    noun = "a whole number" if field.kind is Kind.INTEGER else "a number"
    assert error.allowed == f"give {noun} from {field.minimum} to {field.maximum}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((field.name, 300.5) for field in NUMBERS if field.kind is Kind.INTEGER),
        ("num_inference_steps", 28.5),
        ("seed", 0.5),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", -(10**30)),
        ("megapixels", 1),
        ("megapixels", 0.25),
        ("megapixels", "1.0"),
        ("megapixels", True),
        ("aspect_ratio", "16x9"),
        ("aspect_ratio", ""),
        ("aspect_ratio", "Custom"),
        ("aspect_ratio", ["1:1"]),
        ("model", "DEV"),
        ("model", "dev "),
        ("model", 0),
        ("output_format", "jpeg"),
        ("go_fast", 0),
        ("go_fast", 1),
        ("go_fast", 1.0),
        ("go_fast", "true"),
        ("go_fast", ""),
        ("disable_safety_checker", "no"),
        ("disable_safety_checker", []),
        ("prompt", 5),
        ("prompt", True),
        ("prompt", ["a", "b"]),
        ("image", 5),
        ("image", {"url": "x"}),
        ("mask", False),
        ("lora", 1.5),
        ("extra_lora", []),
    ],
)
def test_refused(name: str, value: object) -> None:
    error = refusal(name, value)
    assert (error.field, error.value, error.allowed) == (name, value, FIELD[name].allowed)
    assert isinstance(error, HotswapError)
    assert isinstance(error, ValueError)
    assert str(error) == f"{name}: {value!r} is not allowed; {error.allowed}"


@pytest.mark.parametrize("value", [2.0**64, 1e300, -1e300, -1.0])
def test_whole_float_out_of_range(value: float) -> None:
    error = refusal("seed", value)
    assert (error.field, error.value) == ("seed", value)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("prompt", "give text"),
        ("image", "give a file name or a link, as text"),
        ("model", 'choose one of "dev", "schnell"'),
        ("go_fast", "give true or false"),
        ("num_outputs", "give a whole number from 1 to 4"),
        ("lora_scale", "give a number from -1 to 3"),
        ("seed", "give a whole number from 0 to 18446744073709551615"),
    ],
)
def test_what_is_allowed(name: str, allowed: str) -> None:
    assert FIELD[name].allowed == allowed


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("promt", "did you mean prompt?"),
        ("Prompt", "did you mean prompt?"),
        ("guidance", "did you mean guidance_scale?"),
        ("num_inference_step", "did you mean num_inference_steps?"),
        ("aspectratio", "did you mean aspect_ratio?"),
        ("lora_weight", "did you mean lora_weights?"),
        ("GO_FAST", "did you mean go_fast?"),
        ("zzzz", "the fields are " + ", ".join(FIELD)),
    ],
)
def test_unknown_field(key: str, suggestion: str) -> None:
    error = refusal(key, "x")
    assert (error.field, error.value, error.allowed) == (key, "x", suggestion)
    assert str(error) == f"{key}: no such field; {suggestion}"


@pytest.mark.parametrize(
    "key", ["", " ", "a\nb", "x" * 61], ids=["empty", "blank", "lines", "long"]
)
def test_unknown_field_with_an_odd_name(key: str) -> None:
    error = refusal(key, 1)
    assert error.field == key
    assert str(error).startswith(f"{shorten(key)}: no such field; ")


def test_unknown_field_is_refused_with_null_too() -> None:
    assert refusal("promt", None).field == "promt"


@pytest.mark.parametrize(
    "names",
    [("lora", "lora_weights"), ("replicate_weights", "lora"), ("lora_weights", "lora")],
    ids="+".join,
)
def test_given_twice(names: tuple[str, str]) -> None:
    with pytest.raises(RequestError, match="lora is given twice; give lora once") as caught:
        parsed(**dict.fromkeys(names, "owner/name"))
    assert caught.value.field == names[1]


@pytest.mark.parametrize("name", FIELD)
@pytest.mark.parametrize("value", ["dev", 1, 0.5, 28, 300.0, True, "1", None, []], ids=repr)
def test_check_value_is_the_parser_of_one_field(name: str, value: object) -> None:
    try:
        held = check_value(FIELD[name], value)
    except RequestError as error:
        assert error.field == name
        assert value is None or refusal(name, value).args == error.args
    else:
        assert getattr(parsed(**{name: value}), name) == held


def test_long_value_is_shortened() -> None:
    text = str(refusal("megapixels", "x" * 10_000))
    assert text.startswith("megapixels: 'xxx")
    assert "xxx... is not allowed" in text
    assert len(text) < 150


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "True"), ("a\nb", r"'a\nb'"), ("x" * 58, repr("x" * 58)), ("x" * 59, None)],
    ids=["true", "newline", "at the limit", "over the limit"],
)
def test_shorten(value: object, shown: str | None) -> None:
    text = shorten(value)
    assert len(text) <= 60
    assert text == (shown or repr(value)[:57] + "...")


@pytest.mark.parametrize("half", ["\ud83d", "a\udc00b"], ids=ascii)
def test_half_of_a_character_is_refused(half: str) -> None:
    """JSON can hold it; neither a tokenizer nor a file can."""
    with pytest.raises(RequestError, match=r"prompt.*holds half of a character"):
        parse_request({"prompt": half})
