"""The tables."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Make both."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("item", models.CharField(max_length=50)),
                ("mailed", models.IntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            "Audit",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("task", models.CharField(max_length=100)),
                ("job", models.CharField(max_length=100)),
            ],
        ),
    )
