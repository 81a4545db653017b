"""The steps of a nightly report, and how they hang together."""

from __future__ import annotations

from celery import Signature, chain, chord, group

from .app import app

#: What a shop sold in a night: pieces by region.
SALES = {"north": [3, 5, 2], "south": [7, 1], "west": [4, 4, 4]}


@app.task
def fetch(night: str) -> dict[str, list[int]]:
    """Fetch a night's sales by region.

    Args:
        night: The date.
    """
    return SALES


@app.task
def total(sales: dict[str, list[int]], region: str) -> int:
    """Add up one region."""
    return sum(sales[region])


@app.task
def merge(totals: list[int]) -> dict[str, int]:
    """Put the totals of the regions beside their names again."""
    return dict(zip(SALES, totals, strict=True))


@app.task
def chart(totals: dict[str, int]) -> str:
    """Draw the totals."""
    return "\n".join(f"{region} {'#' * pieces}" for region, pieces in totals.items())


@app.task
def table(totals: dict[str, int]) -> str:
    """Write the totals down."""
    return "\n".join(f"{region} {pieces}" for region, pieces in totals.items())


@app.task
def publish(pages: list[str], title: str) -> str:
    """Join the pages of the report."""
    return "\n\n".join([title, *pages])


@app.task
def archive(report: str) -> int:
    """Keep the report; its length is the result."""
    return len(report)


@app.task
def announce(report: str) -> str:
    """Tell who waits for it."""
    return report.splitlines()[0]


def nightly_report(night: str) -> Signature:
    """Lay out the report of a night.

    Args:
        night: The date.

    Returns:
        A chain of a task, a chord by regions, a chord of two pages, and a group that uses the whole.
    """
    return chain(
        fetch.s(night),
        chord([total.s(region) for region in SALES], merge.s()),
        chord([chart.s(), table.s()], publish.s(f"Report of {night}")),
        group(archive.s(), announce.s()),
    )
