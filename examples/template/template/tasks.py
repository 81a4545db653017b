"""Tasks, one for each thing that a project wants of Celery."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import aiosqlite

from .app import app
from .cache import remembered

if TYPE_CHECKING:
    from celery import Task


class ServiceUnavailableError(Exception):
    """The service that a task needs is away for the moment."""


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task(bind=True)
def describe(self: Task) -> dict[str, object]:
    """Say what a bound task knows about itself."""
    return {
        "id": self.request.id,
        "queue": (self.request.delivery_info or {}).get("routing_key"),
        "priority": (self.request.delivery_info or {}).get("priority"),
        "retries": self.request.retries,
    }


@app.task(
    bind=True,
    autoretry_for=(ServiceUnavailableError,),
    max_retries=4,
    retry_backoff=True,
    retry_backoff_max=60,
    retry_jitter=True,
)
def fetch(self: Task, works_at: int) -> int:
    """Ask a service that answers at the given attempt; retried with a growing, random pause.

    Args:
        self: The task.
        works_at: The attempt that is answered, counted from 1.

    Returns:
        How many attempts it took.
    """
    attempt: int = self.request.retries + 1
    if attempt < works_at:
        message = f"attempt {attempt} was refused"
        raise ServiceUnavailableError(message)
    return attempt


@app.task(soft_time_limit=1, time_limit=30)
def slow(seconds: float) -> str:
    """Work for a while; after a second `SoftTimeLimitExceeded` is raised, after 30 the process is ended."""
    time.sleep(seconds)
    return "done"


@app.task
def price(product: str) -> float:
    """Look a price up, once a minute at most."""
    return float(remembered(f"price of {product}", time.time))


async def _count_orders(database: str) -> int:
    async with aiosqlite.connect(database) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, product TEXT)")
        await connection.execute("INSERT INTO orders (product) VALUES (?)", ("book",))
        await connection.commit()
        async with connection.execute("SELECT count(*) FROM orders") as rows:
            (number,) = await rows.fetchone() or (0,)
    return int(number)


@app.task
def order(database: str | None = None) -> int:
    """Use an asynchronous database driver: the coroutine has an event loop of its own."""
    return asyncio.run(_count_orders(database or os.environ.get("TEMPLATE_DATABASE", "orders.db")))
