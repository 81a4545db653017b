"""A script outside of Django's commands: it sets Django up, orders, and waits."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from orders.models import Order  # noqa: E402 - Django is set up now
from orders.tasks import report, ship  # noqa: E402

if __name__ == "__main__":
    order = Order.objects.create(product="books", quantity=3)
    print(ship.delay(order.pk).get(timeout=60))
    print(report.delay().get(timeout=60))
