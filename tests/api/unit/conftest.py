"""What several tables of the API need."""

from __future__ import annotations

import pytest
from api.hooks import SHORTER

from flux_hotswap.hosted_api import webhooks


@pytest.fixture
def quick_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as they are, but shorter."""
    monkeypatch.setattr(webhooks, "PAUSES", tuple(pause / SHORTER for pause in webhooks.PAUSES))
    monkeypatch.setattr(webhooks, "THROTTLE", webhooks.THROTTLE / 4)
