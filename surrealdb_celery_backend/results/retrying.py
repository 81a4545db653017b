"""Repeat an operation whose failure passes by itself: how often, and for how long, depends on where it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.utils.log import get_logger
from celery.utils.time import get_exponential_backoff_interval

from .. import celery_compat, errors
from ..client import deadlines
from ..settings import Settings
from .outbox import MAX_WAIT, Outbox

logger = get_logger(__name__)

Result = TypeVar("Result")

#: How often an operation is repeated when `result_backend_max_retries` is not set. With Celery's back-off
#: that bridges about a minute. Celery's own default is for ever, and a get() that never ends is a hang.
MAX_RETRIES = 20
#: Celery's exceptions for retries that ran out, and ours that are of the same class.
_OWN = {BackendGetMetaError: errors.ReadFailed, BackendStoreError: errors.StoreFailed}


class RetryingMixin:
    """Celery's retries of a backend's operations.

    A worker's task repeats for as long as Celery's settings say, by default about a minute. A worker's main loop
    must not wait: it tries once, for a moment, and not at all while the database is known to be away. Outside a
    worker, in a web server above all, a read ends after `surrealdb_read_timeout`.
    """

    settings: Settings
    outbox: Outbox
    always_retry: bool
    max_retries: float
    base_sleep_between_retries_ms: int
    max_sleep_between_retries_ms: int
    _sleep: Callable[[float], None]

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Return whether Celery may repeat the operation: whether its failure passes by itself.

        Args:
            exc: The failure.
        """
        return isinstance(exc, errors.TransientError)

    def reading(self) -> deadlines.time_limit:
        """Give the reads inside a `with` as much time as they may have here."""
        return deadlines.time_limit(None if celery_compat.in_worker() else self.settings.read_timeout)

    def retry(
        self,
        operation: Callable[..., Result],
        *args: Any,
        max_retries: float | None = None,
        what: str | None = None,
        **kwargs: Any,
    ) -> Result:
        """Run an operation under Celery's retry settings.

        Args:
            operation: The operation to run.
            *args: Its arguments.
            max_retries: In the place of `result_backend_max_retries`.
            what: Its name in the log, where the operation's name says too little.
            **kwargs: Its keyword arguments.

        Returns:
            The operation's return value.

        Raises:
            SurrealDBBackendError: The retries or the time ran out, or the failure is not one that passes.
        """
        run = partial(operation, *args, **kwargs)
        if celery_compat.in_worker_main_loop():
            return self._try_in_main_loop(run)
        limit = self.max_retries if max_retries is None else max_retries
        what = what or getattr(operation, "__name__", repr(operation))
        retries = 0
        while True:
            try:
                return run()
            except Exception as exc:
                if not self.is_retried(exc):
                    raise
                pause = self.pause_before_retry(retries + 1)
                left = deadlines.time_left()
                if retries >= limit or (left is not None and left <= pause):
                    if retries:
                        logger.error("%s failed for good after %d retries: %s", what, retries, exc)  # noqa: TRY400 - one line
                    raise
                retries += 1
                logger.warning("%s failed, retry %d of %s follows: %s", what, retries, limit, exc)
                self._call_retry_hook(exc)
                self._sleep(pause)

    def _try_in_main_loop(self, operation: Callable[[], Result]) -> Result:
        if self.outbox.outage is not None:
            raise errors.ServerUnavailable(f"not asked again yet: {self.outbox.outage}") from self.outbox.outage
        try:
            with deadlines.time_limit(MAX_WAIT):
                return operation()
        except Exception as exc:
            if self.exception_safe_to_retry(exc):
                self.outbox.database_is_away(exc)
            raise

    def is_retried(self, exc: Exception) -> bool:
        """Return whether a failure is one that passes, and the user wants retries.

        Args:
            exc: The failure.
        """
        return self.always_retry and self.exception_safe_to_retry(exc)

    def pause_before_retry(self, retry: int) -> float:
        """Return how long to wait before a retry, in seconds, by Celery's settings.

        Args:
            retry: The number of the retry, from 1 on.
        """
        milliseconds: float = get_exponential_backoff_interval(
            self.base_sleep_between_retries_ms, retry, self.max_sleep_between_retries_ms, full_jitter=True
        )
        return milliseconds / 1000

    def _call_retry_hook(self, exc: Exception) -> None:
        hook = celery_compat.retry_hook(self)
        if hook is None:
            return
        try:
            hook(exc)
        except Exception:
            logger.exception("on_backend_retryable_error failed; trying again all the same")

    def _ensure_retryable(
        self,
        func: Callable[..., Result],
        *args: Any,
        fallback_exc: Callable[..., Exception] | None = None,
        fallback_msg: str | None = None,
        max_retries: float | None = None,
        **kwargs: Any,
    ) -> Result:
        """Celery 5.7's own loop, with a line per retry where that has a traceback, and errors of one family."""
        try:
            return self.retry(func, *args, max_retries=max_retries, **kwargs)
        except Exception as exc:
            if not self.is_retried(exc):
                raise
            error = (
                fallback_exc
                if isinstance(fallback_exc, partial)
                else partial(fallback_exc or errors.ResultsUnavailable)
            )
            error = partial(_OWN.get(error.func, error.func), **error.keywords)
            raise error(f"{fallback_msg}: {exc}" if fallback_msg else str(exc)) from exc
