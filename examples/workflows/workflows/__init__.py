"""Chains of groups and chords, and a picture of what they did."""

from .app import app

__all__ = ["app"]
