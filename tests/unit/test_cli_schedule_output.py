"""What the schedule commands print can be read, and does nothing to a terminal."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrealdb_celery_backend.cli.schedule_output import json_text, written_time
from surrealdb_celery_backend.cli.terminal import print_pairs, print_table, safe

pytestmark = pytest.mark.unit

UTC = timezone.utc


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(unicodedata.category(each) not in ("Cc", "Cs", "Zl", "Zp") or each == "\n" for each in text)


ANY_TEXT = st.text(
    alphabet=st.characters(exclude_categories=("Cn", "Co")) | st.characters(categories=("Cs", "Cc", "Cf"))
)


@given(ANY_TEXT)
def test_json_is_the_same_data_and_harmless(text: str) -> None:
    """JSON with whatever text is read back the same, and has no character that a terminal obeys."""
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert is_harmless(written)


@given(ANY_TEXT)
def test_tables_and_pairs_keep_to_their_lines(text: str) -> None:
    """A cell is one line, whatever it holds."""
    import contextlib
    import io

    for write, lines in (
        (lambda: print_table(("NAME", "B"), [(text, "b")]), 2),
        (lambda: print_pairs([("a", safe(text))]), 1),
    ):
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            write()
        assert is_harmless(stream.getvalue())
        assert stream.getvalue().count("\n") == lines


def test_times_say_their_zone() -> None:
    """A time is told in the zone that is asked for, UTC by its name and any other with its offset."""
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert written_time(None) == "-"
    assert written_time(moment) == "2026-01-01 12:00:00 UTC"
    assert written_time(moment, ZoneInfo("UTC")) == "2026-01-01 12:00:00 UTC"
    assert written_time(moment, ZoneInfo("Europe/London")) == "2026-01-01 12:00:00+00:00"
    assert written_time(moment, ZoneInfo("Asia/Tokyo")) == "2026-01-01 21:00:00+09:00"
    assert written_time(moment, timezone(timedelta(0))) == "2026-01-01 12:00:00 UTC"
