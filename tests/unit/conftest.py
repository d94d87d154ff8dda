"""Hypothesis without a stopwatch: a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("flowlaunch", deadline=None)
settings.load_profile("flowlaunch")
