"""The app whose results these are: `celery -A benchmarks.million.app`. $CELERY_RESULT_BACKEND says where they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery

from .tasks import KINDS, RARE_KIND, SPLIT, TOTAL

#: How long results are kept: of those of 30 days, the last day's worth has expired, as before a daily clean-up.
KEPT = timedelta(days=29)

app = Celery("shop", broker="memory://")
app.conf.update(result_extended=True, result_expires=KEPT, task_track_started=True)


def _work(*args: Any, **kwargs: Any) -> None:
    """Nothing runs here: tasks are only known by their names."""


for _kind in (*KINDS, RARE_KIND, SPLIT, TOTAL):
    app.task(_work, name=_kind.name)
