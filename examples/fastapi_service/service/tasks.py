"""Tasks."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from typing import TYPE_CHECKING

import aiosqlite

from .app import celery_app
from .database import with_database
from .settings import settings

if TYPE_CHECKING:
    from celery import Task

COUNT = "INSERT INTO words VALUES (?, ?) ON CONFLICT (word) DO UPDATE SET number = number + excluded.number"


@celery_app.task(bind=True)
def build_report(self: Task, pages: int, seconds_a_page: float = 0.5) -> str:
    """Write a report, and say after each page how far that is."""
    if pages < 1:
        message = f"a report of {pages} pages has nothing to say"
        raise ValueError(message)
    for page in range(1, pages + 1):
        time.sleep(seconds_a_page)
        self.update_state(state="PROGRESS", meta={"current": page, "total": pages, "message": f"page {page}"})
    return f"{pages} pages"


@celery_app.task
@with_database
def count_words(text: str) -> int:
    """Count the words of a text into the database: a task that is a plain function."""
    with sqlite3.connect(settings().database, timeout=20) as connection:
        connection.executemany(COUNT, Counter(text.lower().split()).items())
    connection.close()
    return len(text.split())


@celery_app.task
@with_database
async def top_words(number: int) -> list[tuple[str, int]]:
    """The words that were counted most: a task that is a coroutine."""
    query = "SELECT word, number FROM words ORDER BY number DESC, word LIMIT ?"
    async with (
        aiosqlite.connect(settings().database, timeout=20) as connection,
        connection.execute(query, (number,)) as rows,
    ):
        return [(str(word), int(count)) async for word, count in rows]
