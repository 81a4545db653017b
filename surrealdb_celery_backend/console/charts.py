"""Charts as SVG images, made here by pygal: a browser loads nothing from elsewhere."""

from __future__ import annotations

import sys
from datetime import timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pygal
from pygal.style import Style

from ..results import RecentStats

# pygal leaves a finder for its map plugins among the importers of the process, of a kind that Python warns of.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pygal"]

#: Colours that differ for most kinds of colour blindness, on a light and on a dark page.
OK, BAD, OTHER = "#2a78c8", "#d1495b", "#b08900"
#: Text on a light page, and on a dark one: `--faint` of the page's own style, which an image cannot know.
TEXT, DARK_TEXT = "#55606e", "#a3afbd"
#: A browser asks an image in a page, too, which of the two the viewer wants.
_STYLES = ("file://style.css", "file://graph.css",
           f"inline:@media (prefers-color-scheme: dark) {{ text {{ fill: {DARK_TEXT} !important; }} }}")  # fmt: skip
#: Task names in a chart.
MOST_NAMES = 12
#: Labels of times in a chart.
MOST_TIMES = 7
_FONT = {f"{what}_font_size": 13 for what in ("label", "major_label", "legend", "value", "no_data")}


def over_time(stats: RecentStats, step_text: str, zone: str) -> bytes:
    """Tasks that ended, by part of the span: failed, succeeded and revoked.

    Args:
        stats: The figures.
        step_text: What a part is called.
        zone: The viewer's time zone.
    """
    where = _zone(zone)
    text = "%d %b %H:%M" if stats.step * len(stats.times) > timedelta(days=1) else "%H:%M"
    labels = [row.start.astimezone(where).strftime(text) for row in stats.times]
    chart = _chart(pygal.StackedBar, f"Ended, in each {step_text}", (BAD, OK, OTHER), 260, 3)
    chart.x_labels = labels
    chart.x_labels_major_every = max(1, -(-len(labels) // MOST_TIMES))
    chart.show_minor_x_labels = chart.show_minor_y_labels = False
    chart.y_labels_major_count = 4
    # Failures at the bottom: there a few of them are seen beside many successes.
    for title, state in (("failed", "FAILURE"), ("succeeded", "SUCCESS"), ("revoked", "REVOKED")):
        chart.add(title, [row.states.get(state, 0) for row in stats.times])
    return bytes(chart.render())


def runtime(stats: RecentStats, step_text: str, zone: str) -> bytes:
    """How long tasks ran, by name.

    Args:
        stats: The figures.
        step_text: As of :func:`over_time`; not shown here.
        zone: Likewise.
    """
    return _by_name(stats, "runtime", "Run time, seconds")


def queue_time(stats: RecentStats, step_text: str, zone: str) -> bytes:
    """How long tasks waited, by name.

    Args:
        stats: The figures.
        step_text: As of :func:`over_time`; not shown here.
        zone: Likewise.
    """
    return _by_name(stats, "queue_time", "Queue time, seconds")


def _by_name(stats: RecentStats, what: str, title: str) -> bytes:
    rows = [row for row in stats.names if getattr(row, what) is not None][:MOST_NAMES]
    chart = _chart(pygal.HorizontalBar, title, (OTHER, OK), max(260, 110 + 26 * len(rows)), 2)
    chart.x_labels = [_short(row.key) for row in reversed(rows)]
    chart.add("95 of 100 below", [getattr(row, what).p95 for row in reversed(rows)])
    chart.add("median", [getattr(row, what).p50 for row in reversed(rows)])
    return bytes(chart.render())


def _chart(kind: Any, title: str, colours: tuple[str, ...], height: int, columns: int) -> Any:
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground=TEXT,
        foreground_strong=TEXT,
        foreground_subtle=TEXT,
        guide_stroke_dasharray="2,4",
        major_guide_stroke_dasharray="2,4",
        guide_stroke_color="#9a9a9a66",
        major_guide_stroke_color="#9a9a9a66",
        opacity=1,
        colors=colours,
        font_family="system-ui, sans-serif",
        title_font_size=15,
        **_FONT,
    )
    return kind(
        title=title,
        style=style,
        width=520,
        height=height,
        js=(),
        css=_STYLES,
        disable_xml_declaration=False,
        no_data_text="no task says",
        legend_at_bottom=True,
        legend_at_bottom_columns=columns,
        legend_box_size=10,
        truncate_label=-1,
        truncate_legend=-1,
        pretty_print=False,
        margin=12,
    )


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # unknown here, or no name of a zone at all
        return timezone.utc


def _short(name: str) -> str:
    return name if len(name) <= 22 else "…" + name[-21:]
