"""All settings: from the environment, or a file `.env` beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

HERE = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """The settings of web, worker and beat."""

    model_config = SettingsConfigDict(env_file=".env", env_prefix="SERVICE_", extra="ignore")

    #: The two that every Celery project has, under their usual names.
    broker_url: str = Field(default=f"folder://{HERE / 'broker'}", validation_alias="CELERY_BROKER_URL")
    result_backend: SecretStr = Field(
        default=SecretStr("surrealdb://root:root@localhost:8000/celery/service"),
        validation_alias="CELERY_RESULT_BACKEND",
    )
    queue: str = "celery"
    time_zone: str = "Europe/Berlin"
    #: The service's own database: SERVICE_DATABASE.
    database: Path = HERE / "words.sqlite3"
    #: Where the nightly backups of all results go, and for how many days they stay.
    backup_folder: Path = HERE / "backups"
    backup_days: float = Field(default=7, gt=0)
    #: Who may use the console; without a password it only shows, which is for loopback alone.
    console_user: str = "ada"
    console_password: SecretStr | None = None
    #: Where Flower is, for the link on the page.
    flower_url: str = "http://127.0.0.1:5555"


@cache
def settings() -> Settings:
    """Read the settings, once."""
    return Settings()
