"""Pages: the orders with a form for the next one, and what became of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import states
from celery.exceptions import TimeoutError as NotReady
from django import forms
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from kombu.utils.uuid import uuid
from shop.celery import app

from surrealdb_celery_backend import aio

from .models import Order
from .tasks import confirm, ship

if TYPE_CHECKING:
    from django.http import HttpRequest


class OrderForm(forms.ModelForm):
    """What a customer fills in."""

    class Meta:
        """Which fields those are."""

        model = Order
        fields = ("product", "quantity")


def orders(request: HttpRequest) -> HttpResponse:
    """Show the orders; take a new one."""
    form = OrderForm(request.POST or None)
    if form.is_valid():
        with transaction.atomic():
            order = form.save(commit=False)
            # The id is chosen here: nothing is sent before the transaction is committed, and nothing if it fails.
            order.task_id = uuid()
            order.save()
            ship.apply_async_on_commit((order.pk,), task_id=order.task_id)
            confirm.delay_on_commit(order.pk)
        return redirect("orders")
    return render(request, "orders/orders.html", {"form": form, "orders": Order.objects.order_by("-pk")[:20]})


async def task(request: HttpRequest, task_id: str) -> JsonResponse:
    """Answer with a task's state, and its result or error; `?wait=10` waits so many seconds for its end."""
    result = app.AsyncResult(task_id)
    try:
        await aio.get(result, timeout=min(float(request.GET.get("wait", 0)), 60), propagate=False)
    except NotReady:
        return JsonResponse({"state": await aio.state(result)}, status=202)
    if result.state == states.SUCCESS:
        return JsonResponse({"state": result.state, "result": result.result})
    return JsonResponse({"state": result.state, "error": f"{type(result.result).__name__}: {result.result}"})
