"""The table of the orders."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make it."""

    initial = True
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("product", models.CharField(max_length=100)),
                ("quantity", models.PositiveIntegerField(default=1)),
                ("state", models.CharField(default="new", max_length=20)),
                ("task_id", models.CharField(max_length=40)),
            ],
        ),
    ]
