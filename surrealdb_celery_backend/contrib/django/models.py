"""Names for Django's permissions, admin and log: nothing of these models is in a table of Django's."""

from __future__ import annotations

from django.db import models


class Elsewhere(models.Manager):
    """Finds nothing in Django's database, where nothing is: the typed API reads what there is."""

    def get_queryset(self) -> models.QuerySet:
        return super().get_queryset().none()


class Task(models.Model):
    """A task of which something is stored."""

    id = models.CharField("id", primary_key=True, max_length=512)
    name = models.CharField("task", max_length=512)

    objects = Elsewhere()

    class Meta:
        """What Django is told."""

        managed = False
        base_manager_name = "objects"
        verbose_name = "task result"
        default_permissions = ("view", "delete")
        permissions = (("retry_task", "Can retry task result"), ("revoke_task", "Can revoke task result"))

    def __str__(self) -> str:
        return str(self.name or self.id)


class Schedule(models.Model):
    """A schedule entry."""

    name = models.CharField("name", primary_key=True, max_length=512)

    objects = Elsewhere()

    class Meta:
        """What Django is told."""

        managed = False
        base_manager_name = "objects"
        verbose_name = "schedule"

    def __str__(self) -> str:
        return str(self.name)
