"""Addresses."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.orders, name="orders"),
    path("tasks/<str:task_id>", views.task, name="task"),
]
