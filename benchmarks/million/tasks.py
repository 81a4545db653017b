"""What the tasks of the data set are: names, workers, queues and errors of a shop, by how often they come."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

#: The name of five tasks among all.
RARE, RARE_COUNT = "shop.audit.close_year", 5
#: A name, and a text, of none.
NOTHING = "shop.no.such_task"
#: A worker, an error and a tag of few tasks.
RARE_WORKER, RARE_ERROR, RARE_TAG = "celery@old-1", "CardStolen", "recall"


class Kind(NamedTuple):
    """A kind of task.

    Attributes:
        name: Its name.
        weight: How often it comes.
        queue: Its queue.
        runtime: Seconds that it runs, about.
        failing: The part of them that fail.
        periodic: The beat entry that sends it.
    """

    name: str
    weight: int
    queue: str
    runtime: float
    failing: float
    periodic: str | None = None


KINDS = (
    Kind("shop.orders.confirm", 28, "celery", 0.2, 0.03),
    Kind("shop.mail.send", 24, "mail", 0.6, 0.06),
    Kind("web.images.thumbnail", 16, "celery", 1.5, 0.01),
    Kind("shop.stock.sync", 10, "celery", 4.0, 0.05, "sync-stock"),
    Kind("shop.payments.capture", 8, "payments", 0.9, 0.08),
    Kind("web.search.index", 6, "celery", 0.4, 0.01),
    Kind("shop.reports.daily", 4, "slow", 60.0, 0.04, "daily-report"),
    Kind("shop.imports.rows", 4, "slow", 12.0, 0.10),
)
WEIGHTS = [kind.weight for kind in KINDS]
RARE_KIND = Kind(RARE, 0, "slow", 30.0, 0.0)
SPLIT, TOTAL = Kind("shop.orders.split", 0, "celery", 0.3, 0.0), Kind("shop.orders.total", 0, "celery", 0.3, 0.01)
WORKERS = tuple(f"celery@web-{number}" for number in range(1, 9))
TAGS = ("vip", "canary", "bulk")


def _error(name: str, module: str) -> type[Exception]:
    return type(name, (Exception,), {"__module__": module})


#: Classes of errors, how often they come, and what they say.
ERRORS = (
    (_error("OperationalError", "sqlalchemy.exc"), 45, "connection to the database was lost after {} ms"),
    (_error("KeyError", "builtins"), 25, "order-{}"),
    (_error("ConnectionError", "requests.exceptions"), 20, "no answer from the mail server within {} ms"),
    (_error("SoftTimeLimitExceeded", "billiard.exceptions"), 10, "{}"),
)
ERROR_WEIGHTS = [weight for _, weight, _ in ERRORS]
STOLEN = _error(RARE_ERROR, "shop.errors")
_FRAMES = "".join(
    f'  File "/srv/shop/{module}.py", line {line}, in {function}\n    {code}\n'
    for module, line, function, code in (
        ("celery/app/trace", 479, "trace_task", "R = retval = fun(*args, **kwargs)"),
        ("shop/tasks", 112, "run", "return handle(order, timeout=timeout)"),
        ("shop/handlers", 58, "handle", "with session.begin(): return step(order)"),
        ("shop/steps", 203, "step", "response = client.call(order.customer, order.lines)"),
        ("shop/client", 77, "call", "return self._send(request, retries=3)"),
        ("shop/client", 131, "_send", "raise error from None"),
    )
)


@dataclass(frozen=True)
class Failure:
    """How a task failed.

    Attributes:
        error: The exception.
        traceback: Its traceback, as text.
    """

    error: Exception
    traceback: str


def failure(chance: random.Random) -> Failure:
    """An error as it comes."""
    number = chance.randrange(10_000)
    if number == 0:
        kind, said = STOLEN, "card-{}"
    else:
        kind, _, said = chance.choices(ERRORS, ERROR_WEIGHTS)[0]
    message = said.format(chance.randrange(100_000))
    return Failure(
        kind(message),
        f"Traceback (most recent call last):\n{_FRAMES}{kind.__module__}.{kind.__qualname__}: {message}\n",
    )


def arguments(chance: random.Random) -> tuple[list[Any], dict[str, Any]]:
    """What a task is called with."""
    number = chance.randrange(10**6)
    return [number], {"customer": number % 5000, "order": f"order-{number}", "express": number % 7 == 0}


def result(chance: random.Random) -> Any:
    """What a task returns."""
    number = chance.randrange(100_000)
    if number % 4 == 0:
        return None
    return {"total": number, "currency": "EUR", "lines": [{"sku": f"sku-{number % 997}", "count": number % 9 + 1}]}


#: Text that stands in the arguments of few tasks, as they are stored.
RARE_ARGUMENT = json.dumps("order-77777")
