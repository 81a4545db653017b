"""Run the nightly report, wait for it, and say what its picture is drawn from.

python -m workflows
"""

from __future__ import annotations

from datetime import datetime, timezone

from .tasks import nightly_report


def main() -> None:
    """Send the workflow and wait for its end."""
    night = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    result = nightly_report(night).apply_async()
    length, title = result.get(timeout=120)
    print(f"{title}: {length} characters")
    print(f"python -m workflows.draw {result[0].id} report.svg")


if __name__ == "__main__":
    main()
