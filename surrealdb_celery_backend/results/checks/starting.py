"""The check of a worker's start. The log names what would fail at the first task; no finding stops the worker."""

from __future__ import annotations

import threading
from typing import Any

from celery.utils.log import get_logger

from .database import check
from .finding import Checked, Severity

logger = get_logger(__name__)

#: How findings are logged; others at debug.
_LOGGED = {Severity.ERROR: logger.error, Severity.WARNING: logger.warning, Severity.ADVICE: logger.warning}


def check_in_background(backend: Checked, pool: str | None) -> threading.Thread:
    """Check a backend in a thread of its own, so that the worker starts meanwhile.

    Args:
        backend: The worker's result backend.
        pool: The module of the worker's pool.

    Returns:
        The thread.
    """
    thread = threading.Thread(target=report, args=(backend, pool), name="surrealdb-check", daemon=True)
    thread.start()
    return thread


def report(backend: Checked, pool: str | None) -> None:
    """Check a backend and log each finding in one line.

    Args:
        backend: The worker's result backend.
        pool: The module of the worker's pool.
    """
    try:
        findings = check(backend, pool=pool)
    except Exception as exc:  # the worker goes on after any error, and its first task says the same
        logger.warning("the result backend could not be checked: %s", exc)
        return
    log: Any
    for finding in findings:
        log = _LOGGED.get(finding.severity, logger.debug)
        log("result backend, %s: %s", finding.subject, finding)
