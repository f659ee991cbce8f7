"""Users without a home folder, as in containers that run under any number."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_hotswap.errors import SettingsError
from flux_hotswap.files.settings import Settings
from flux_hotswap.files.tokens import FILE_VARIABLE, default_file
from flux_hotswap.lora_fetch import cli
from flux_hotswap.lora_fetch.__main__ import look


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pathlib does where neither the environment nor the system knows a home."""

    def home(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    def expanduser(path: Path) -> Path:
        return home(Path) if str(path).startswith("~") else path

    monkeypatch.setattr(Path, "home", classmethod(home))
    monkeypatch.setattr(Path, "expanduser", expanduser)


def test_no_file_of_tokens_is_looked_for() -> None:
    assert default_file() is None
    settings = Settings.from_environment({}, token_file=default_file(), login=lambda: None)
    assert not settings.tokens.by_origin


def test_a_file_below_a_home_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"~/x, which .* names, starts with ~.* whole path"):
        Settings.from_environment({FILE_VARIABLE: "~/x"}, login=lambda: None)
    file = tmp_path / "tokens"
    file.write_text("HF_TOKEN=hf_x\n")
    file.chmod(0o600)
    settings = Settings.from_environment({FILE_VARIABLE: str(file)}, login=lambda: None)
    assert settings.tokens.by_origin


@pytest.mark.parametrize("variable", ["FLUX_HOTSWAP_LORAS", "COMFYUI_DIR"])
def test_a_folder_below_a_home_that_is_not_there(
    variable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list"], {variable: "~/loras"}, look) == 1
    assert f"~/loras, which {variable} names, starts with ~" in capsys.readouterr().err
