"""The page for the registry's reviewers says what the code reaches: all of it, and as it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

import pytest
from runtime.archive import archived
from runtime.environment import ROOT
from runtime.pages import code_words, first_cells, page, section

from flux_hotswap.engine import kept, models, trial
from flux_hotswap.engine.fetching import LORAS
from flux_hotswap.files.settings import Settings, parse_size
from flux_hotswap.hosted_api.local import CARDS
from flux_hotswap.lora_fetch import cli, store
from flux_hotswap.lora_fetch.__main__ import look
from flux_hotswap.ops.safety import weights

REGISTRY = page("docs/registry.md")


def shipped_code() -> dict[str, str]:
    names = [name for name in archived() if name.endswith(".py")]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names}


API_SWITCH = "FLUX_HOTSWAP_API"
"""Read where only ComfyUI can import it."""


class Asked(Mapping[str, str]):
    """An environment without variables that remembers which were asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.names.add(key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def read_variables() -> set[str]:
    """Return the variables that the pack reads, by letting it read them."""
    asked = Asked()
    Settings.from_environment(asked, login=lambda: None)
    assert cli.main(["list"], asked, look) == 1, "no folder is named"
    return asked.names | {kept.SIZE, trial.VARIABLE, API_SWITCH, CARDS}


def test_reviewers_find_every_variable() -> None:
    variables = read_variables()
    assert {"HF_TOKEN", "FLUX_HOTSWAP_ALLOW_HOSTS", "COMFYUI_DIR"} <= variables
    written = [code_words(cell) for cell in first_cells(section(REGISTRY, "Environment"))]
    assert set().union(*written) == variables


def environment_uses(text: str) -> Iterator[str]:
    """Yield each expression that code has `os.environ` or `os.getenv` in, the smallest one."""
    for node in ast.walk(ast.parse(text)):
        parts = {ast.unparse(child) for child in ast.iter_child_nodes(node)}
        if parts & {"os.environ", "os.getenv"}:
            yield ast.unparse(node)


def test_reviewers_find_every_module_that_reads_the_environment() -> None:
    """Each hands the whole on, but for one that asks for a single variable."""
    found = {name: list(environment_uses(text)) for name, text in shipped_code().items()}
    (line,) = re.findall(r"^Read in (.*?), and handed on", section(REGISTRY, "Environment"), re.M)
    assert {name for name, uses in found.items() if uses} == code_words(line)
    asking = [use for uses in found.values() for use in uses if re.match(r"os\.\w+[.(\[]", use)]
    assert asking == ["os.environ.get"] * 4, "read_variables knows of no other"
    for name in ("SIZE", "VARIABLE"):
        assert f"os.environ.get({name})" in shipped_code()["engine/models.py"]
    assert "os.environ.get(CARDS)" in shipped_code()["hosted_api/local.py"]
    extension = shipped_code()["nodes/extension.py"]
    assert "os.environ.get(API_SWITCH," in extension
    assert f'API_SWITCH: Final = "{API_SWITCH}"' in extension


FOLDERS = {
    f"models/{LORAS}/{store.FOLDER}": (Settings().cache_bytes, Settings().max_bytes),
    f"models/{models.FOLDERS[0]}/{models.CACHE_FOLDER}": (kept.DEFAULT_SIZE,),
    f"models/{models.FOLDERS[0]}/{models.SCALES_FOLDER}": (0.1e9,),
    f"models/{weights.FOLDER}": (sum(file.size for file in weights.FILES.values()),),
}
"""Where the pack writes beside the output folder, and what that takes, in bytes."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_reviewers_find_every_folder_and_its_size(folder: str) -> None:
    rows = section(REGISTRY, "Disk").splitlines()
    (row,) = (row for row in rows if row.startswith(f"| `{folder}` |"))
    sizes = [parse_size(text) for text in re.findall(r"`(\d+[MG])`", row)]
    sizes += [round(float(text) * 1e9) for text in re.findall(r"([\d.]+) GB", row)]
    assert sizes == [pytest.approx(size, rel=0.01) for size in FOLDERS[folder]]
    for name in re.findall(r"`(FLUX_HOTSWAP_\w+)`", row):
        assert name in read_variables()


def test_reviewers_find_every_module_that_makes_a_folder() -> None:
    found = {name for name, text in shipped_code().items() if re.search(r"\bmkdir\(", text)}
    table = code_words(section(REGISTRY, "Disk"))
    assert found == {word for word in table if word.endswith(".py")}


def test_reviewers_find_every_word() -> None:
    """What scanners look for is on the page, and what is said not to be there is not."""
    words = {".eval()": r"\.eval\(\)", "import_module": r"import_module\("}
    words |= {"base64": r"^import base64", "socket": r"^import socket"}
    page = section(REGISTRY, "Words that scanners find")
    for word, pattern in words.items():
        found = {name for name, text in shipped_code().items() if re.search(pattern, text, re.M)}
        (row,) = re.findall(rf"^\| `{re.escape(word)}` \| (.*?) \|", page, re.M)
        assert found == code_words(row), word
    for name, text in shipped_code().items():
        assert not re.search(r"\bimport (subprocess|pickle)\b|\bexec\(|(?<![.\w])eval\(", text), (
            name
        )


def test_reviewers_find_every_module_that_connects() -> None:
    opening = re.compile(
        r"HTTPAdapter|create_connection|urlopen|ClientSession|requests\.(get|post)"
    )
    found = {name for name, text in shipped_code().items() if opening.search(text)}
    api = {name for name in found if name.startswith("hosted_api/")}
    assert found - api == {"files/net.py", "files/proxy.py"}
    assert found <= code_words(REGISTRY)


def test_reviewers_find_every_route() -> None:
    found = {name for name, text in shipped_code().items() if "server.routes" in text}
    assert found == {"gate/routes.py"}
    routes = re.findall(r'_ROUTE: Final = "(.*?)"', shipped_code()["gate/routes.py"])
    assert len(routes) == 4
    assert set(routes) <= {
        word.removeprefix("POST ") for word in code_words(section(REGISTRY, "Server"))
    }
