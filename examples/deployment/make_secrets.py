"""Make the secrets that the compose files read, once: `python make_secrets.py` in this folder.

They are files in `secrets/`, readable by their owner, and never in a repository. What is there already stays.
"""

from __future__ import annotations

import secrets
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "secrets"


def contents() -> dict[str, str]:
    """Make up a text for each file."""
    root, redis = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    return {
        # SurrealDB's image has no shell to read a file with: these become its variables.
        "surrealdb.env": f"SURREAL_USER=root\nSURREAL_PASS={root}\n",
        "surrealdb_root_password": root,
        "surrealdb_password": secrets.token_urlsafe(24),
        "redis_password": redis,
        "broker_url": f"redis://:{redis}@redis:6379/0",
        "console_password": secrets.token_urlsafe(12),
        "django_secret_key": secrets.token_urlsafe(48),
        "flower_basic_auth": f"admin:{secrets.token_urlsafe(12)}",
    }


def main() -> None:
    """Write the files that are not there yet."""
    if FOLDER.exists():
        print(f"{FOLDER} is there already; remove it to make new secrets")
        return
    FOLDER.mkdir(mode=0o700)
    for name, text in contents().items():
        path = FOLDER / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        # Readable in the container, whose user has another id; the folder keeps others out.
        path.chmod(0o644)
    print(f"written to {FOLDER}")


if __name__ == "__main__":
    main()
