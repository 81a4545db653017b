"""Sentry's real SDK in a test, whose wrappers around Celery's functions go with the test."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import billiard.pool
import celery.app.trace
import pytest
from celery import Celery
from celery.app.task import Task
from celery.beat import Scheduler
from kombu import Producer

with warnings.catch_warnings():
    # The SDK looks whether eventlet is there, which says at its import that it is deprecated.
    warnings.simplefilter("ignore")
    sentry_sdk = pytest.importorskip("sentry_sdk")
    from sentry_sdk import integrations
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.transport import Transport

#: What the SDK wraps, for as long as the process lives.
_WRAPPED: tuple[tuple[Any, str], ...] = (
    (Task, "apply_async"),
    (Celery, "send_task"),
    (Producer, "publish"),
    (Scheduler, "apply_entry"),
    (billiard.pool.Worker, "workloop"),
    (celery.app.trace, "build_tracer"),
)


class Kept(Transport):
    """Keeps the check-ins that are sent to Sentry."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep it."""
        self.items += [item.payload.json for item in envelope.items if item.type == "check_in"]


@contextmanager
def sentry(monkeypatch: pytest.MonkeyPatch, patch: Callable[[], Any] = lambda: None, **options: Any) -> Iterator[Kept]:
    """Have Celery watched by Sentry's SDK.

    Args:
        monkeypatch: The test's.
        patch: Called once the SDK is set up.
        options: Those of `CeleryIntegration`.

    Yields:
        What is sent to Sentry.
    """
    for owner, name in _WRAPPED:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    integrations._processed_integrations.discard("celery")
    kept = Kept()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            transport=kept,
            default_integrations=False,
            integrations=[CeleryIntegration(**options)],
        )
        try:
            patch()
            yield kept
        finally:
            sentry_sdk.init()
