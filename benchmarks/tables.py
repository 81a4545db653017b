"""The tables as docs/benchmarks.md shows them: of one run, or of several beside each other."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .measures import Row

HEADINGS = {
    "round-trips": "Round trips",
    "calls": "Store and fetch",
    "join": "Join",
    "wake-up": "Waiting for one result",
    "end-to-end": "A real worker",
    "chord-parts": "Chords, by the size of the header",
    "clean-up": "Clean-up",
    "distant": "With 20 ms added to every reply",
}
#: From so many samples on, a cell says between which values half of them lie.
SPREAD_FROM = 4


@dataclass(frozen=True)
class Report:
    """The samples of a run.

    Attributes:
        contenders: Name and label, in the order of the columns.
        rows: Rows by measure.
        samples: Samples by measure, contender and row.
        about: When, where and with which versions.
    """

    contenders: list[tuple[str, str]]
    rows: dict[str, list[Row]]
    samples: dict[str, dict[str, dict[str, list[float]]]]
    about: dict[str, str]

    def values(self, measure: str, contender: str, row: str) -> list[float]:
        """The samples of one cell; empty where there are none."""
        return self.samples.get(measure, {}).get(contender, {}).get(row, [])

    def median(self, measure: str, contender: str, row: str) -> float | None:
        """The median of the samples; None where there are none."""
        values = self.values(measure, contender, row)
        return statistics.median(values) if values else None

    def ratio(self, measure: str, row: Row, reference: str | None = None) -> float | None:
        """Ours divided by the reference's."""
        ours = self.median(measure, "ours", row.key)
        other = self.median(measure, reference or row.reference, row.key)
        if ours is None or not other:
            return None
        return ours / other

    def write(self, file: Path) -> None:
        """Write everything, as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Report:
        """Read a run that was written."""
        fields = json.loads(file.read_text())
        rows = {measure: [Row(**row) for row in found] for measure, found in fields["rows"].items()}
        contenders = [(name, label) for name, label in fields["contenders"]]
        return cls(contenders, rows, fields["samples"], fields["about"])


def markdown(reports: Sequence[Report]) -> str:
    """One table per measure: medians with their spread, and ours against the peer of the row.

    Args:
        reports: One run, or several of the same measures: their figures stand beside each other in a cell.
    """
    first = reports[0]
    parts = ["; ".join(", ".join(f"{name} {value}" for name, value in report.about.items()) for report in reports)]
    for measure, rows in first.rows.items():
        parts.append(f"### {HEADINGS[measure]}")
        parts.append(_table(reports, measure, rows))
    return "\n\n".join(parts)


def _table(reports: Sequence[Report], measure: str, rows: list[Row]) -> str:
    everybody = dict.fromkeys(each for report in reports for each in report.contenders)
    taking_part = [each for each in everybody if any(each[0] in report.samples.get(measure, {}) for report in reports)]
    with_ratio = [row for row in rows if row.higher_is_better is not None]
    references = {row.reference for row in with_ratio} & {name for name, _ in taking_part}
    header = ["", *(label for _, label in taking_part)]
    if references:
        header += ["ours : " + " or ".join(sorted(references)), "decided by"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in rows:
        line = [row.title]
        line += [
            _joined([_cell(report.values(measure, name, row.key), row.unit) for report in reports])
            for name, _ in taking_part
        ]
        if references:
            compared = row.higher_is_better is not None
            ratios = [report.ratio(measure, row) if compared else None for report in reports]
            line.append(_joined(["" if ratio is None else number(ratio) for ratio in ratios]))
            line.append(row.decided_by if compared else "")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(values: list[float], unit: str) -> str:
    if not values:
        return ""
    text = f"{number(statistics.median(values))} {unit}".rstrip()
    if len(values) < SPREAD_FROM or max(values) == min(values):
        return text
    low, _, high = statistics.quantiles(values, n=4)
    return f"{text} ({number(low)} to {number(high)})"


def _joined(cells: list[str]) -> str:
    """The same cell of several runs; once where they agree."""
    return " / ".join(dict.fromkeys(cell for cell in cells if cell))


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def plot(report: Report, file: Path) -> None:
    """Draw how much better (right) or worse (left) ours is than Redis and PostgreSQL.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text, not outlines: a fifth of the size
    from matplotlib import pyplot as plt

    labels, bars = _bars(report)
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(labels) + 1.2))
    height = 0.38
    titles = dict(report.contenders)
    for place, (reference, factors) in enumerate(bars.items()):
        positions = [index + (place - 0.5) * height for index in range(len(labels))]
        # Bars begin at 1, "as good as": a logarithmic axis has no 0.
        widths = [factor - 1 for factor in factors]
        axes.barh(positions, widths, height, left=1, label=f"against {titles.get(reference, reference)}")
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times better (right of 1) or worse (left of 1), medians of one run")
    axes.legend(fontsize=8)
    figure.tight_layout()
    metadata: dict[str, Any] | None = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, metadata=metadata)


def _bars(report: Report) -> tuple[list[str], dict[str, list[float]]]:
    """The labels of the plot, and by peer how many times better ours is."""
    labels: list[str] = []
    bars: dict[str, list[float]] = {"redis": [], "postgres": []}
    for measure, rows in report.rows.items():
        for row in rows:
            if row.higher_is_better is None:
                continue
            ratios = {reference: report.ratio(measure, row, reference) for reference in bars}
            if not any(ratios.values()):
                continue
            labels.append(row.title + (" (20 ms away)" if measure == "distant" else ""))
            for reference, ratio in ratios.items():
                better = (ratio if row.higher_is_better else 1 / ratio) if ratio else float("nan")
                bars[reference].append(better)
    return labels, bars
