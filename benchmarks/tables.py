"""The table as docs/benchmarks.md shows it, and the plot."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Report:
    """The samples of a run.

    :param contenders: name and label, in the order of the columns.
    :param rows: by measure.
    :param samples: by measure, contender and row.
    :param about: when, where and with what.
    """

    contenders: list[tuple[str, str]]
    rows: dict[str, list[Row]]
    samples: dict[str, dict[str, dict[str, list[float]]]]
    about: dict[str, str]

    def median(self, measure: str, contender: str, row: str) -> float | None:
        """The median of the samples; None where there are none."""
        values = self.samples[measure].get(contender, {}).get(row)
        return statistics.median(values) if values else None

    def ratio(self, measure: str, row: Row, reference: str | None = None) -> float | None:
        """Ours divided by the reference's."""
        ours = self.median(measure, "ours", row.key)
        other = self.median(measure, reference or row.reference, row.key)
        if ours is None or not other:
            return None
        return ours / other

    def markdown(self) -> str:
        """One table per measure: medians, and ours against the peer of the row."""
        parts = [", ".join(f"{name} {value}" for name, value in self.about.items())]
        for measure, rows in self.rows.items():
            taking_part = [each for each in self.contenders if each[0] in self.samples[measure]]
            with_ratio = [row for row in rows if row.higher_is_better is not None]
            references = {row.reference for row in with_ratio} & {name for name, _ in taking_part}
            header = ["", *(label for _, label in taking_part)]
            if references:
                header.append("ours : " + " or ".join(sorted(references)))
            lines = [header, ["---", *["---:"] * (len(header) - 1)]]
            for row in rows:
                medians = [self.median(measure, name, row.key) for name, _ in taking_part]
                cells = ["" if value is None else f"{_number(value)} {row.unit}".rstrip() for value in medians]
                line = [row.title, *cells]
                if references:
                    ratio = self.ratio(measure, row) if row.higher_is_better is not None else None
                    line.append("" if ratio is None else f"{_number(ratio)}")
                lines.append(line)
            parts.append(f"### {HEADINGS[measure]}")
            parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"about": self.about, "contenders": dict(self.contenders), "samples": self.samples}

    def plot(self, file: Path) -> None:
        """Draw how much better (right) or worse (left) ours is than Redis and PostgreSQL.

        :raises ImportError: matplotlib is not installed.
        """
        import matplotlib as mpl

        mpl.use("agg")
        mpl.rcParams["svg.fonttype"] = "none"  # text, not outlines: a fifth of the size
        from matplotlib import pyplot as plt

        labels: list[str] = []
        bars: dict[str, list[float]] = {"redis": [], "postgres": []}
        for measure, rows in self.rows.items():
            for row in rows:
                if row.higher_is_better is None:
                    continue
                factors = {}
                for reference in bars:
                    ratio = self.ratio(measure, row, reference)
                    factors[reference] = (ratio if row.higher_is_better else 1 / ratio) if ratio else float("nan")
                if any(factor == factor for factor in factors.values()):  # noqa: PLR0124 - not all NaN
                    distant = " (20 ms away)" if measure == "distant" else ""
                    labels.append(row.title + distant)
                    for reference, factor in factors.items():
                        bars[reference].append(factor)
        figure, axes = plt.subplots(figsize=(9, 0.32 * len(labels) + 1.2))
        height = 0.38
        titles = dict(self.contenders)
        for place, (reference, factors_) in enumerate(bars.items()):
            positions = [index + (place - 0.5) * height for index in range(len(labels))]
            # Bars begin at 1, "as good as": a logarithmic axis has no 0.
            axes.barh(
                positions,
                [factor - 1 for factor in factors_],
                height,
                left=1,
                label=f"against {titles.get(reference, reference)}",
            )
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("times better (right of 1) or worse (left of 1), medians of one run")
        axes.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"
