"""Tasks of an app are found by `autodiscover_tasks`; `shared_task` belongs to whatever Celery app the project has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import shared_task

from .models import Order

if TYPE_CHECKING:
    from celery import Task


class OutOfStockError(Exception):
    """There are not so many."""


@shared_task(bind=True)
def ship(self: Task, order_id: int) -> str:
    """Ship an order, and say how far that is."""
    order = Order.objects.get(pk=order_id)
    if order.quantity > 100:
        order.state = "refused"
        order.save()
        message = f"there are no {order.quantity} of {order.product}"
        raise OutOfStockError(message)
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 2, "message": "packing"})
    order.state = "shipped"
    order.save()
    return f"shipped {order}"


@shared_task
def confirm(order_id: int) -> str:
    """Tell the customer. The order is there: this is sent when its transaction has been committed."""
    return f"confirmed {Order.objects.get(pk=order_id)}"


@shared_task
def report() -> dict[str, int]:
    """Count the orders by their state; sent by beat."""
    states = Order.objects.values_list("state", flat=True)
    return {state: list(states).count(state) for state in set(states)}


@shared_task
def heartbeat() -> str:
    """Sent by beat every ten seconds."""
    return "alive"
