"""What is in Django's database."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order, and the task that ships it."""

    product = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=20, default="new")
    task_id = models.CharField(max_length=40)

    def __str__(self) -> str:
        return f"{self.quantity} {self.product}"
