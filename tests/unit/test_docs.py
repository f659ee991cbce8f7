"""The documents: complete, in step with the code, and without dead links."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from runtime import demo
from runtime.archive import archived, tracked
from runtime.pages import page, section

import dev
from flux_hotswap.prediction.plan import make_plan
from flux_hotswap.prediction.request import parse_request
from flux_hotswap.prediction.spec import FIELD, FIELDS
from flux_hotswap.tools.differences import DIFFERENCES
from flux_hotswap.tools.field_notes import FIELD_NOTES
from flux_hotswap.tools.recipes import MODELS, RECIPES

ROOT = Path(__file__).resolve().parents[2]
README = page("README.md")
DEVELOPMENT = page("docs/development.md")
RECORDED: dict[str, dict[str, Any]] = json.loads(
    (ROOT / "tests" / "data" / "object_info.json").read_text(encoding="utf-8")
)
NODES = {name: entry for name, entry in RECORDED.items() if name.startswith("FluxHotswap")}

SHIPPED = ("prediction", "files", "lora_fetch", "ops", "engine", "gate", "nodes", "hosted_api")
COMFYUI_BRINGS = {
    "torch", "numpy", "PIL", "aiohttp", "yarl", "safetensors", "transformers", "yaml", "tqdm",
    "psutil", "comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths",
    "node_helpers", "nodes", "server",
}  # fmt: skip
"""Top-level modules that are there wherever ComfyUI 0.3.75 or later runs."""


# Help pages


def test_there_are_nodes_and_every_page_is_of_one() -> None:
    assert len(NODES) >= 7
    pages = {path.stem for path in (ROOT / "js" / "docs").glob("*.md")}
    assert pages == set(NODES)


@pytest.mark.parametrize("name", NODES)
def test_help_page(name: str) -> None:
    page = (ROOT / "js" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    entry = NODES[name]
    assert page.startswith(f"# {entry['display_name']}\n")
    rows = re.findall(r"^\| `(\w+)` \|", section(page, "Inputs"), re.M)
    order = entry["input_order"]
    assert sorted(rows) == sorted([*order.get("required", []), *order.get("optional", [])])
    cells = re.findall(r"^\|([^|]*`[^|]*)\|", section(page, "Outputs"), re.M)
    outputs = [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]
    assert sorted(outputs) == sorted(entry["output_name"])


@pytest.mark.parametrize("name", NODES)
def test_help_page_defaults_and_ranges(name: str) -> None:
    page = (ROOT / "js" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) ?\| ", section(page, "Inputs"), re.M)
    written = {row[0]: (row[1].strip("`"), row[2]) for row in rows}
    for group in ("required", "optional"):
        for key, spec in NODES[name]["input"].get(group, {}).items():
            options = spec[1]
            default = options.get("default")
            if options.get("forceInput") or default is None:
                assert written[key][0] == ""
                assert written[key][1].startswith("connection")
                continue
            expected = default if isinstance(default, str) else json.dumps(default)
            assert written[key][0] == (expected or "empty"), key
            if "min" in options:
                high = "2^64-1" if options["max"] == 2**64 - 1 else options["max"]
                assert written[key][1] == f"{options['min']:g} to {high}", key


@pytest.mark.parametrize("name", NODES)
def test_an_output_is_not_called_by_what_goes_in(name: str) -> None:
    """The help of a field says what to give, which is no word about what comes out."""
    assert not {field.help for field in FIELDS} & set(NODES[name]["output_tooltips"])


# README


@pytest.mark.parametrize("name", NODES)
def test_readme_names_the_node(name: str) -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\((.*?)\) \| .+ \|$", section(README, "Nodes"), re.M)
    assert (name, f"js/docs/{name}.md") in rows


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_readme_and_page_name_the_field(field: Any) -> None:
    assert f"| `{field.name}` |" in section(README, "Fields")
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert field.help in section(page, f"`{field.name}`")


@pytest.mark.parametrize("name", ["demo", "test"])
def test_readme_names_the_commands_to_try_it(name: str) -> None:
    assert name in dev.COMMANDS
    assert f"\npython3 dev.py {name}\n" in section(README, "Try it without a GPU")


def test_readme_names_the_files_of_the_workflows() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| \[.*?\]\((.*?)\) \|$", section(README, "Real weights"), re.M
    )
    wanted = [
        (model.name, model.directory, model.url) for group in MODELS.values() for model in group
    ]
    assert sorted(rows) == sorted(wanted)


def test_readme_names_the_templates() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(", section(README, "In the graph editor"), re.M)
    assert rows == [recipe.name for recipe in RECIPES]


def test_readme_example_fits_the_workflow() -> None:
    """The nodes that the API example names, and the field it fills in."""
    code, hosted = re.findall(r"```python\n(.*?)```", README, re.S)
    ast.parse(hosted)
    ast.parse(code)
    paths = re.findall(r'Path\("([^"]+)"\)', code)
    assert paths == ["workflows/api/flux_lora_schema.json"]
    prompt = json.loads((ROOT / paths[0]).read_text(encoding="utf-8"))
    numbers = re.findall(r'(?:prompt|outputs)\["(\d+)"\]', code)
    kinds = {prompt[number]["class_type"] for number in numbers}
    assert kinds == {"FluxHotswapInputs", "FluxHotswapSave"}
    given = re.search(r'\["inputs"\] = (\{.*?\})', code)
    assert given
    parse_request(ast.literal_eval(given[1]))


# The page of fields


def test_every_field_has_a_note() -> None:
    assert list(FIELD_NOTES) == list(FIELD)


@pytest.mark.parametrize("name", FIELD_NOTES)
def test_example_is_a_request_that_uses_its_field(name: str) -> None:
    example = FIELD_NOTES[name].example
    request = parse_request(example)
    assert getattr(request, name) == example[name]
    image = (640, 480) if request.image else None
    plan = make_plan(request, seed=0, image=image, mask=request.mask is not None)
    ignored = [warning for warning in plan.warnings if "ignored" in warning]
    assert not ignored


def test_rows_of_the_tables() -> None:
    texts = [text for row in DIFFERENCES for text in (row.topic, row.hosted, row.ours)]
    assert texts
    for text in texts:
        assert text.strip() == text != ""
        assert "|" not in text
        assert "\n" not in text
    topics = [row.topic for row in DIFFERENCES]
    assert len(set(topics)) == len(topics) >= 8


# Development


@pytest.mark.parametrize("name", dev.COMMANDS)
def test_development_names_the_command(name: str) -> None:
    commands = re.findall(r"^\| `python3 dev.py (\w+)", section(DEVELOPMENT, "Commands"), re.M)
    assert name in commands


def test_development_names_the_options_of_demo() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    demo.add_arguments(parser)
    options = set(re.findall(r"^  (--\w+)", parser.format_help(), re.M))
    assert options >= {"--input", "--json", "--keep"}
    written = set(re.findall(r"^\| `(--\w+)", section(DEVELOPMENT, "Commands"), re.M))
    assert written == options


@pytest.mark.parametrize("name", ["COMFYUI_DIR", "COMFYUI_PYTHON"])
def test_development_names_the_variable(name: str) -> None:
    source = (ROOT / "tests" / "runtime" / "comfyui.py").read_text(encoding="utf-8")
    assert f'environ.get("{name}")' in source
    assert f"- `{name}` is " in section(DEVELOPMENT, "Commands")


def test_development_example_request() -> None:
    found = re.search(r"^echo '(\{.*\})' > request.json$", DEVELOPMENT, re.M)
    assert found
    make_plan(parse_request(json.loads(found[1])), seed=0)


def test_map_names_every_module() -> None:
    table = section(DEVELOPMENT, "What is where")
    cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    named: set[str] = set()
    for cell in cells:
        folder = ""
        for word in re.findall(r"`([^`]+)`", cell):  # `a/b.py` `c.py` is a/b.py and a/c.py
            folder = word.rpartition("/")[0] or folder
            named.add(f"{folder}/{word}" if folder and "/" not in word else word)
    for name in named:
        assert (ROOT / name).exists(), name
    folders = tuple(f"{folder}/" for folder in (*SHIPPED, "tools"))
    modules = {name for name in tracked() if name.startswith(folders) and name.endswith(".py")}
    assert {name for name in modules if not name.endswith("__init__.py")} - named == set()


def test_documented_update_switch() -> None:
    (name,) = set(re.findall(r"`(\w+)=1 python3 dev.py test", DEVELOPMENT))
    test = re.findall(r"dev.py test (tests/\S+) -k (\w+)`", DEVELOPMENT)
    assert len(test) == 1
    source = (ROOT / test[0][0]).read_text(encoding="utf-8")
    assert f'environ.get("{name}")' in source
    assert re.search(rf"^def test_\w*{test[0][1]}", source, re.M)


# Links

PAGES = [name for name in tracked() if name.endswith(".md")]


def test_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/fields.md", "docs/development.md"} <= set(PAGES)


def test_no_conflict_is_left_in_a_page() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ", "=" * 7 + "\n")
    for name in PAGES:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines(keepends=True)
        assert [line for line in lines if line.startswith(marks)] == [], name


@pytest.mark.parametrize("name", PAGES)
def test_links(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / name).parent / file if file else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_a_page_that_a_message_names_is_in_the_archive() -> None:
    """An installed pack has no folder `docs`, so no message may send anybody there."""
    kept = set(archived())
    for name in (name for name in kept if name.endswith(".py")):
        named = re.findall(r"[\w./-]+\.md\b", (ROOT / name).read_text(encoding="utf-8"))
        assert set(named) <= kept, name


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_anchors() -> None:
    assert anchors("# Real weights\ntext\n## `a_b`\n### What's new?") == {
        "real-weights",
        "a_b",
        "whats-new",
    }


# Packaging


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [text for line in lines if (text := line.partition("#")[0].strip())]


def dependencies() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^dependencies = (\[.*?\])$", text, re.M | re.S)  # tomllib needs 3.11
    assert found
    return ast.literal_eval(found[1])


def test_requirements_are_the_projects_dependencies() -> None:
    assert requirements() == dependencies()


def imported_packages() -> set[str]:
    """Return the top-level names that the shipped code imports from outside."""
    found: set[str] = set()
    files = [
        ROOT / "__init__.py",
        *(path for top in SHIPPED for path in (ROOT / top).rglob("*.py")),
    ]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"flux_hotswap"}  # lora_fetch/__main__.py


def test_requirements_hold_what_is_imported() -> None:
    """Nothing that ComfyUI does not bring is missing, nothing is asked for in vain.

    Ray is an extra, see requirements-ray.txt; test_purity.py says where it may be imported.
    """
    names = {re.split(r"[<>=!~;\[ ]", line)[0].replace("-", "_") for line in requirements()}
    imported = imported_packages()
    assert {"torch", "numpy", "PIL", "comfy_api"} <= imported, "the walk finds no imports"
    assert imported - COMFYUI_BRINGS - {"ray"} == names


def test_archive_holds_what_an_installed_pack_needs() -> None:
    files = tracked()
    kept = set(archived())
    tops = ("__init__.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")
    assert kept >= set(tops)
    needed = (*(f"{folder}/" for folder in SHIPPED), "js/", "subgraphs/")
    needed_files = {name for name in files if name.startswith(needed)}
    needed_files |= {
        name for name in files if re.fullmatch(r"workflows/(api/)?\w+\.(json|jpg)", name)
    }
    needed_files |= {name for name in files if re.fullmatch(r"locales/[\w-]+/\w+\.json", name)}
    needed_files -= {name for name in files if name.startswith("locales/phrases/")}
    assert len(needed_files) > 30
    assert needed_files <= kept
    dropped = ("tests/", "bench/", ".ci/", "docs/", "locales/phrases/")
    assert not [name for name in kept if name.startswith(dropped)]
    assert not {"dev.py", "package.json", "tsconfig.json", ".npmrc"} & kept
    for recipe in RECIPES:
        assert f"workflows/{recipe.name}.jpg" in kept, "the template's thumbnail"


def test_licence() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license = { file = "LICENSE" }' in text
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache-2.0" in section(README, "More")
