"""Django's settings, and Celery's: those begin with `CELERY_`."""

from __future__ import annotations

import os
from pathlib import Path

from celery.schedules import crontab

HERE = Path(__file__).resolve().parent.parent
#: For development. Set DJANGO_SECRET_KEY, and DJANGO_DEBUG=0, where others reach this.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for development only")
DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "surrealdb_celery_backend.contrib.django",
    "orders",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DJANGO_DATABASE", HERE / "shop.sqlite3"),
        # The web process and the worker's write to one file: they wait for each other.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
# The folder of `manage.py collectstatic`, from which a proxy serves in production.
STATIC_ROOT = os.environ.get("DJANGO_STATIC_ROOT", HERE / "static")
USE_TZ = True
TIME_ZONE = "Europe/Berlin"

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", f"folder://{HERE / 'broker'}")
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND", "surrealdb://root:root@localhost:8000/celery/shop")
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("SHOP_QUEUE", "celery")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE
# Names, arguments, workers and queues are stored with the results: the admin shows them and searches in them.
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
# Tasks are seen from their sending on, not from their start.
CELERY_SURREALDB_TRACK_SENT = True
# Beat writes these entries into the database, where the admin changes and pauses them.
CELERY_BEAT_SCHEDULER = "surrealdb"
CELERY_BEAT_SCHEDULE = {
    "report of the day": {"task": "orders.tasks.report", "schedule": crontab(hour=7, minute=30)},
    "heartbeat": {"task": "orders.tasks.heartbeat", "schedule": 10},
}
