"""Chords: the store of header tasks' parts and claims, and Celery's semantics on top of it."""

from __future__ import annotations

from .dispatch import Chords, HeaderTask
from .store import ChordStore
from .upkeep import Upkeep

__all__ = ["ChordStore", "Chords", "HeaderTask", "Upkeep"]
