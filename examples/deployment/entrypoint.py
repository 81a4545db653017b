"""Start a command with its secrets: for each variable NAME_FILE, NAME is what stands in that file.

python -m deployment.entrypoint celery -A shop worker
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SUFFIX = "_FILE"
#: Where compose puts the files of secrets. Other variables that end in _FILE are left alone.
SECRETS = "/run/secrets/"


def with_secrets(environment: Mapping[str, str], folder: str = SECRETS) -> dict[str, str]:
    """Read the secrets.

    Args:
        environment: Usually `os.environ`.
        folder: Where files of secrets are.

    Returns:
        The environment, with the texts of the files, without white space around them.
    """
    read = {
        name.removesuffix(SUFFIX): Path(path).read_text(encoding="utf-8").strip()
        for name, path in environment.items()
        if name.endswith(SUFFIX) and path.startswith(folder)
    }
    return {**environment, **read}


if __name__ == "__main__":
    # In this process's place, so that signals reach the command.
    os.execvpe(sys.argv[1], sys.argv[1:], with_secrets(os.environ))  # noqa: S606 - no shell is wanted
