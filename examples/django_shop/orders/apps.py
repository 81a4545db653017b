"""The app."""

from __future__ import annotations

from django.apps import AppConfig


class Orders(AppConfig):
    """Orders of a shop."""

    name = "orders"
