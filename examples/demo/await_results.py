"""Awaiting results from asyncio, as a web application would, with a worker elsewhere.

    python -m surrealdb_celery_backend.devserver     # in one terminal
    celery -A celery_app worker                      # in another
    python -m await_results                          # here

`delay()` talks to the broker and blocks for a moment, so it runs in a thread; waiting
for a thousand results costs one thread in all.
"""

from __future__ import annotations

import asyncio

from celery.result import AsyncResult
from tasks import add, divide

from surrealdb_celery_backend import aio


async def send(x: int, y: int) -> AsyncResult:
    """Send a task without holding up the event loop."""
    return await asyncio.to_thread(add.delay, x, y)


async def main() -> None:
    """Send tasks, and wait for their results in three ways."""
    one = await send(2, 3)
    print("one:", await aio.get(one, timeout=30))

    many = await asyncio.gather(*(send(n, n) for n in range(10)))
    print("many, in order:", await aio.join(many, timeout=30))

    failing = await asyncio.to_thread(divide.delay, 1, 0)
    try:
        await aio.get(failing, timeout=30)
    except ZeroDivisionError as error:
        print("a failure:", error)


if __name__ == "__main__":
    asyncio.run(main())
