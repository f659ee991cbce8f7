"""The locale files: current, complete, and translations indeed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flux_hotswap.tools import locales

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("de", "es", "fr", "ja", "ko", "pt-BR", "zh")
SCRIPT = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]", "ko": r"[\uac00-\ud7a3]"}


def test_languages() -> None:
    assert tuple(locales.languages()) == LANGUAGES
    folders = {path.name for path in (ROOT / "locales").iterdir() if path.is_dir()}
    assert folders == {*LANGUAGES, "en", "phrases"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_are_of_that_language(language: str) -> None:
    phrases = locales.languages()[language]
    sentences = {text: said for text, said in phrases.items() if " " in text.strip()}
    assert len(sentences) > 100
    kept = [text for text, said in sentences.items() if said == text and "Hotswap" not in text]
    assert len(kept) <= 2, kept  # the line with the size, and "Link: {name}"
    script = SCRIPT.get(language)
    if script:
        bare = [said for text, said in sentences.items() if not re.search(script, said)]
        assert len(bare) <= 4, bare
    assert len(set(phrases.values())) > 0.9 * len(phrases)


def test_a_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dict(locales.languages()["de"])
    broken = {text: said for text, said in whole.items() if text != "Cancel"}
    broken |= {"{field}: is missing": "fehlt", "Old text.": "Alter Text.", "mask": " "}
    broken["Final width of the image in pixels."] = "Breite @ Ende"
    monkeypatch.setattr(locales, "languages", lambda: {"de": broken})
    found = "\n".join(locales.gaps())
    assert found.count("\n") == 4
    for part in ("lacks 'Cancel'", "'Old text.' is not used", "other placeholders", "is empty"):
        assert part in found
    assert "takes for its own" in found


def test_english_holds_no_sign_of_the_translator() -> None:
    assert not [t for t in locales.texts(locales.english_nodes()) if locales.SPECIAL & set(t)]


def test_the_scripts_say_only_what_there_is() -> None:
    messages = set(locales.english_messages())
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "js").rglob("*.mjs")
        if path.name != "messages.mjs"
    )
    said = set(
        re.findall(
            r"""\bsay\("(\w+)"|RequestError\("(\w+)"|"(error_\w+)"|, "(\w+)", \w+Request\)""",
            source,
        )
    )
    names = {name for found in said for name in found if name}
    assert len(names) > 20
    assert names <= messages
    dynamic = {name for name in messages if name.startswith(("kind_", "reason_"))}
    assert messages - names - dynamic == set()


def test_every_kind_of_source_has_a_name() -> None:
    from flux_hotswap.lora_fetch.services import SERVICES

    sources = [source for service in SERVICES for source in service.sources]
    kinds = {"Replicate", "HuggingFace", "CivitAI", "Link", "Tar", "LocalFile", "DataURI"}
    assert {source.__name__ for source in sources} >= kinds
    names = {source.kind for source in sources}
    assert len(names) == len(sources)
    assert {f"kind_{name}" for name in names} == {
        name for name in locales.english_messages() if name.startswith("kind_")
    }


def test_files_are_json_of_texts() -> None:
    for path in (ROOT / "locales").rglob("*.json"):
        assert all(
            isinstance(text, str) for text in locales.texts(json.loads(path.read_text("utf-8")))
        )
