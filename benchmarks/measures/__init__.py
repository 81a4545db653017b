"""What is measured. Each measure gives numbers of one contender, one repetition at a time."""

from __future__ import annotations

from .base import QUICK, Bench, Measure, Row, Sizes
from .calls import Calls, Join, RoundTrips
from .cleanup import CleanUp
from .distant import Distant
from .parts import ChordParts
from .wake_up import WakeUp
from .workers import EndToEnd

__all__ = ["MEASURES", "QUICK", "Bench", "Measure", "Row", "Sizes"]

MEASURES: tuple[type[Measure], ...] = (RoundTrips, Calls, Join, WakeUp, EndToEnd, ChordParts, CleanUp, Distant)
