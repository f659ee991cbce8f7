"""What is refused when a prompt is queued, before ComfyUI looks at it and anything is loaded.

ComfyUI's own check of a prompt makes every text true that stands for a boolean, cuts 2.7 to 2,
drops what it does not know, and sees one node at a time. So the pack reads a prompt first: it
brings the form's fields into their own names, takes `null` for "not given", and marks what is not
allowed, or surely not there. A marked value is one that no type takes: ComfyUI's check fails on
exactly that input and answers HTTP 400 with the node, the input and our words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from comfy_api.latest import io

from ..engine.fetching import LORAS, open_store, settings
from ..engine.models import model_path
from ..engine.pictures import check_source
from ..engine.weights import missing_weights
from ..errors import MissingFileError, RequestError, SaveError
from ..ops.naming import DEFAULT_PREFIX, clean_prefix
from ..prediction.fill import BESIDE, is_link
from ..prediction.plan import make_plan
from ..prediction.request import by_field, check_value, nearest, parse_request, unwrap
from ..prediction.spec import CUSTOM, FIELD, FIELD_OF, MODELS, Field, Kind
from .refused import Refused, RefusedChoice

FORM: Final = "FluxHotswapInputs"

KINDS: Final = {
    io.Boolean.Input: Kind.BOOLEAN,
    io.Int.Input: Kind.INTEGER,
    io.Float.Input: Kind.NUMBER,
    io.String.Input: Kind.STRING,
}

Inputs = dict[str, Any]
Prompt = Mapping[str, Any]
Found = Iterator[tuple[str, str]]
"""Names of inputs that are refused, and why."""


def reader(classes: Mapping[str, type[io.ComfyNode]]) -> Callable[[Any], Any]:
    """Return what ComfyUI calls with the body of POST /prompt.

    Args:
        classes: our nodes by their id.
    """

    def look_at(data: Any) -> Any:
        prompt = data.get("prompt") if isinstance(data, dict) else None
        if isinstance(prompt, dict):
            for key, kind, inputs in _ours(prompt):
                if kind in classes:
                    _check(key, kind, inputs, prompt, classes[kind])
        return data

    return look_at


def _ours(prompt: Prompt) -> list[tuple[str, str, Inputs]]:
    """Return id, class and inputs of our nodes, the forms first: others are checked by them."""
    found = [
        (key, node["class_type"], node["inputs"])
        for key, node in prompt.items()
        if isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    ]
    return sorted(found, key=lambda entry: entry[1] != FORM)


def _check(key: str, kind: str, inputs: Inputs, prompt: Prompt, node: type[io.ComfyNode]) -> None:
    schema = node.define_schema()
    steps = [lambda: _types(inputs, schema), lambda: CHECKS[kind](key, inputs, prompt)]
    if kind == FORM:
        steps.insert(0, lambda: _names(inputs))
    choices = {entry.id for entry in schema.inputs if isinstance(entry, io.Combo.Input)}
    for step in steps if kind in CHECKS else steps[:-1]:
        for name, why in list(step()):
            made = RefusedChoice if name in choices else Refused
            inputs[name] = made(inputs.get(name, ""), why)


# --- every node ---


def _types(inputs: Inputs, schema: io.Schema) -> Found:
    """Refuse values of another JSON type than the input's, or out of its range."""
    for entry in schema.inputs:
        name = entry.id
        if name not in inputs or is_link(inputs[name]) or isinstance(inputs[name], Refused):
            continue
        if inputs[name] is None:  # as if it were not there: the default, or "is missing"
            del inputs[name]
        elif (kind := KINDS.get(type(entry))) is not None:
            low, high = _limit(entry, "min"), _limit(entry, "max")
            try:
                field = Field(name, kind, "", minimum=low, maximum=high)
                inputs[name] = check_value(field, inputs[name])
            except RequestError as error:
                yield name, str(error)


def _limit(entry: io.Input, which: str) -> float | int | None:
    """Return the end of an input's range as a person would write it: 3, not 3.0."""
    limit: Any = getattr(entry, which, None)
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


# --- the form ---


def _names(inputs: Inputs) -> Found:
    """Give every field its own name; refuse what is no field, at the nearest one."""
    given = dict(unwrap(inputs)) | {name: inputs[name] for name in BESIDE if name in inputs}
    inputs.clear()
    for name, value in given.items():
        if name in BESIDE:
            inputs[name] = value
            continue
        try:
            fields = by_field({name: value})
        except RequestError as error:
            yield FIELD_OF.get(nearest(name), "prompt"), str(error)
            continue
        for field, checked in fields.items():
            if field in inputs:
                yield field, f"{name}: {field} is given twice; give {field} once"
            else:
                inputs[field] = checked


def _form(key: str, inputs: Inputs, prompt: Prompt) -> Found:
    """Refuse what no check of a single input can see, and what is surely not there."""
    if any(isinstance(value, Refused) for value in inputs.values()):
        return
    given = {name: value for name, value in inputs.items() if name in FIELD}
    linked = {name for name, value in given.items() if is_link(value)}
    known = {name: value for name, value in given.items() if name not in linked}
    has_image = (
        bool(_text(known, "image")) or "image" in linked or is_link(inputs.get("input_image"))
    )
    try:
        _plan(known, linked, has_image=has_image)
    except RequestError as error:
        if FIELD[error.field].kind is not Kind.ENUM:  # ComfyUI names the choices itself
            yield error.field, str(error)
        return
    if has_image and not _takes_pictures(key, prompt):
        yield "image", "image: this graph takes no picture; connect a VAE to the Latent node"
    # A connected image wins; of a connected mask only the run can tell whether it is one.
    for name in ("mask",) if is_link(inputs.get("input_image")) else ("image", "mask"):
        if source := _text(known, name):
            try:
                check_source(name, source)
            except RequestError as error:
                yield name, str(error)
    for name in ("lora", "extra_lora"):
        if why := _lora_problem(_text(known, name), known.get(f"{name}_scale", 1)):
            yield name, f"{name}: {why}"


def _plan(known: Inputs, linked: set[str], *, has_image: bool) -> None:
    """Plan what is known; what is connected counts as right.

    Raises:
        RequestError: it cannot be right, whatever comes through the connections.
    """
    raw = {"prompt": "", **known}
    for side in ("width", "height"):
        if side in linked:
            raw[side] = FIELD[side].minimum
    if raw.get("aspect_ratio") != CUSTOM:
        raw = {name: value for name, value in raw.items() if name not in ("width", "height")}
    request = parse_request(raw)
    make_plan(request, seed=0, image=(1, 1) if has_image else None, mask=bool(request.mask))


def _text(inputs: Inputs, name: str) -> str:
    value = inputs.get(name)
    return value.strip() if isinstance(value, str) else ""


def _takes_pictures(form: str, prompt: Prompt) -> bool:
    """Whether no Latent node that takes the form's request lacks a VAE."""
    latents = [
        node["inputs"]
        for node in prompt.values()
        if isinstance(node, dict)
        and node.get("class_type") == "FluxHotswapLatent"
        and isinstance(node.get("inputs"), dict)
    ]
    own = [inputs for inputs in latents if _is_from(inputs.get("request"), form)]
    return all(is_link(inputs.get("vae")) for inputs in own)


def _is_from(value: Any, node: str) -> bool:
    return is_link(value) and str(value[0]) == node


def _form_of(inputs: Inputs, prompt: Prompt) -> Inputs | None:
    """Return the inputs of the form whose request a node takes."""
    wire: Any = inputs.get("request")
    node = prompt.get(str(wire[0])) if is_link(wire) else None
    if not isinstance(node, dict) or node.get("class_type") != FORM:
        return None
    return node["inputs"] if isinstance(node.get("inputs"), dict) else None


def _lora_problem(text: str, scale: object) -> str | None:
    """Return why a LoRA source cannot be had; None if it may, or is not fetched at scale 0."""
    import folder_paths

    from ..errors import FetchError
    from ..lora_fetch.parser import parse
    from ..lora_fetch.services.data import DataURI
    from ..lora_fetch.services.local import LocalFile

    if not text:
        return None
    try:
        source = parse(text)
        if scale == 0 or isinstance(source, DataURI):
            return None
        if isinstance(source, LocalFile):
            here = folder_paths.get_full_path(LORAS, source.name) is not None
            return None if here else f"{source.name} is not in the loras folders; put it there"
        if settings().offline and open_store().find(source) is None:
            return f"{source.shown()} is not here, and FLUX_HOTSWAP_OFFLINE lets nothing be fetched"
    except FetchError as error:
        return str(error)
    return None


# --- the other nodes ---


def _lora(_key: str, inputs: Inputs, _prompt: Prompt) -> Found:
    if not is_link(inputs.get("request")) and (
        why := _lora_problem(_text(inputs, "source"), inputs.get("scale", 1))
    ):
        yield "source", f"source: {why}"


def _loader(_key: str, inputs: Inputs, prompt: Prompt) -> Found:
    """Ask only for the file that is needed; the other may be missing."""
    form = _form_of(inputs, prompt) if "request" in inputs else inputs
    model = None if form is None else form.get("model", FIELD["model"].default)
    file = f"{model}_file"
    if model not in MODELS or not isinstance(inputs.get(file), str):
        return  # connected, or ComfyUI's own to refuse
    try:
        model_path(inputs[file], model)
    except MissingFileError as error:
        yield file, str(error)


def _safety(_key: str, inputs: Inputs, prompt: Prompt) -> Found:
    from ..errors import FetchError

    form = _form_of(inputs, prompt) if "request" in inputs else inputs
    off = None if form is None else form.get("disable_safety_checker", False)
    if off is not False or inputs.get("checker", "hosted") != "hosted":
        return
    try:
        if settings().offline and (missing := missing_weights()):
            yield (
                "checker",
                f"the files of the hosted checker are missing ({', '.join(missing)}), and "
                "FLUX_HOTSWAP_OFFLINE lets nothing be fetched; the Safety node's help page says "
                "where they go",
            )
    except FetchError as error:  # a variable that cannot be read
        yield "checker", str(error)


def _save(_key: str, inputs: Inputs, _prompt: Prompt) -> Found:
    prefix = inputs.get("filename_prefix", DEFAULT_PREFIX)
    if isinstance(prefix, str) and not isinstance(prefix, Refused):
        try:
            clean_prefix(prefix, datetime.now().astimezone())
        except SaveError as error:
            yield "filename_prefix", str(error)


CHECKS: Final[Mapping[str, Callable[[str, Inputs, Prompt], Found]]] = {
    FORM: _form,
    "FluxHotswapLora": _lora,
    "FluxHotswapLoader": _loader,
    "FluxHotswapSafety": _safety,
    "FluxHotswapSave": _save,
}
