"""Settings of the unit tests: drawn examples are the same in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", database=None, deadline=None, derandomize=True)
settings.load_profile("unit")
