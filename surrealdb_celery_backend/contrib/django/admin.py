"""The models that Django's admin registers."""

from __future__ import annotations

from django.contrib import admin

from .models import Schedule, Task
from .result_pages import TaskAdmin
from .schedule_pages import ScheduleAdmin

admin.site.register(Task, TaskAdmin)
admin.site.register(Schedule, ScheduleAdmin)
