"""The tasks of the examples: ordinary Celery tasks, nothing in them knows SurrealDB."""

from __future__ import annotations

import time

from celery import Task
from celery_app import app


class ServiceUnavailableError(Exception):
    """What a service says that is not there yet."""


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def multiply(x: int, y: int) -> int:
    """Multiply two numbers."""
    return x * y


@app.task
def total(numbers: list[int]) -> int:
    """Add up what the tasks of a group returned."""
    return sum(numbers)


@app.task
def divide(x: int, y: int) -> float:
    """Divide; by zero, it fails."""
    return x / y


@app.task(
    bind=True,
    autoretry_for=(ServiceUnavailableError,),
    max_retries=3,
    default_retry_delay=0.1,
)
def fetch(self: Task, path: str, works_at: int = 3) -> str:
    """Ask a service that answers at the third attempt.

    Args:
        self: The task, with its request.
        path: What to ask for.
        works_at: The attempt that is answered, counted from 1.

    Returns:
        The answer, which says how many attempts it took.
    """
    attempt = self.request.retries + 1
    if attempt < works_at:
        message = f"{path} is not there yet"
        raise ServiceUnavailableError(message)
    return f"{path} after {attempt} attempts"


@app.task(bind=True)
def resize(self: Task, images: int, seconds_each: float = 0.3) -> str:
    """Work for a while and say how far it has come.

    Args:
        self: The task, which stores the progress.
        images: How many pieces of work there are.
        seconds_each: How long one takes.

    Returns:
        A sentence.
    """
    for done in range(1, images + 1):
        time.sleep(seconds_each)  # the work
        self.update_state(state="PROGRESS", meta={"done": done, "of": images})
    return f"{images} images resized"
