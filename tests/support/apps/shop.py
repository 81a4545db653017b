"""The project whose worker, beat and console the browser tests start."""

from __future__ import annotations

import os
import time

import folder_broker  # noqa: F401 - makes `folder:///path` a broker
from celery import Celery, Task

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BACKEND"])
app.conf.update(
    result_extended=True,
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"tick": {"task": "shop.tick", "schedule": 1.0}},
)


@app.task(name="shop.tick")
def tick() -> str:
    """Sent by beat."""
    return "tock"


@app.task(name="shop.pack", bind=True)
def pack(self: Task, folder: str) -> str:
    """Report progress, then wait until somebody allows the end."""
    self.update_state(state="PROGRESS", meta={"current": 3, "total": 4, "message": "packing"})
    end = time.monotonic() + 120
    while not os.path.exists(os.path.join(folder, "go")) and time.monotonic() < end:  # noqa: PTH110, PTH118
        time.sleep(0.02)
    return "packed"


@app.task(name="shop.pay")
def pay(folder: str) -> str:
    """Fail the first time."""
    mark = os.path.join(folder, "paid")  # noqa: PTH118
    if not os.path.exists(mark):  # noqa: PTH110
        with open(mark, "w"):  # noqa: PTH123
            pass
        raise ValueError("the card was refused")
    return "paid"


@app.task(name="shop.order")
def order(number: int) -> int:
    """A step of a workflow."""
    return number + 1
