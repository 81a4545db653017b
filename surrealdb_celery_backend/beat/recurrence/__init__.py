"""When an entry is due: schedules as readable data, and the next due time of each.

Due times are instants in UTC that follow from the schedule alone, never from
the moment somebody looked: two beats that compute the next one agree on it, so
that a firing can be claimed by entry and due time.
"""

from __future__ import annotations

from .base import Recurrence
from .clocked import Clocked
from .crontab import Crontab
from .crontab_fields import CRONTAB_FIELDS, EXPRESSION_FIELDS, CrontabSets, expression_fields, parsed_crontab
from .data import normal_data, recurrence, schedule_data
from .interval import Interval
from .project import InCode
from .rrule import RRule
from .solar import Solar

__all__ = [
    "CRONTAB_FIELDS",
    "EXPRESSION_FIELDS",
    "Clocked",
    "Crontab",
    "CrontabSets",
    "InCode",
    "Interval",
    "RRule",
    "Recurrence",
    "Solar",
    "expression_fields",
    "normal_data",
    "parsed_crontab",
    "recurrence",
    "schedule_data",
]
