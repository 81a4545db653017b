"""Where settings are given: the environment and `app.conf`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..celery_compat import given_setting_names
from ..errors import SettingsError
from .kinds import PREFIX
from .names import nearest, unknown

if TYPE_CHECKING:
    from celery import Celery

#: The prefixes of a setting's name in the environment. The first wins: it can only be meant for Celery.
VARIABLES = (f"CELERY_{PREFIX}".upper(), PREFIX.upper())

#: How much of two names must be alike for one to be a mistake for the other: 1 is all.
ALIKE = 0.65
#: A variable of either form, or nearly; not SURREAL_…, which are the `surreal` command's.
_NEARLY_OURS = re.compile(r"((?P<celery>CELERY)_*SURREAL_*(DB)?|SURREAL_?DB)_*(?P<name>.+)")
#: Short forms that other programs use.
_SHORT = {"ns": "namespace", "db": "database", "pwd": "password", "pw": "password", "uri": "url"}


def from_environment(environment: Mapping[str, str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Read the settings that the environment gives.

    Args:
        environment: `os.environ`.
        names: The names of all settings, without `surrealdb_`.

    Returns:
        The given values, by name; and a sentence for every variable whose name is close to a setting's but none.
    """
    given: dict[str, str] = {}
    for before in reversed(VARIABLES):
        given.update(
            {name: environment[before + name.upper()] for name in names if environment.get(before + name.upper())}
        )
    known = {before + name.upper() for before in VARIABLES for name in names}
    doubts = []
    for variable in sorted(set(environment) - known):
        meant = _meant(variable, names)
        if meant is not None:
            doubts.append(f"the environment variable {variable} is no setting and is not used; did you mean {meant}?")
    return given, doubts


def _meant(variable: str, names: Collection[str]) -> str | None:
    """The variable that was probably meant; None for one of another program."""
    parts = _NEARLY_OURS.fullmatch(variable.upper())
    if parts is None:
        return None
    before = VARIABLES[0] if parts["celery"] else VARIABLES[1]
    rest = parts["name"].lower()
    # CELERY_SURREALDB_… belongs to nobody else; SURREALDB_… may be another program's.
    cutoff = 0 if variable.startswith(VARIABLES[0]) else ALIKE
    meant = _SHORT.get(rest) or nearest(rest, names, cutoff=cutoff)
    return meant and before + meant.upper()


def from_conf(app: Celery, names: Collection[str], may_be_none: Collection[str] = ()) -> dict[str, Any]:
    """Read the settings that `app.conf` gives.

    Args:
        app: The Celery app.
        names: The names of all settings, without `surrealdb_`.
        may_be_none: Those of which None is a value, and not the same as none given.

    Returns:
        The given values, by name.

    Raises:
        SettingsError: There is a `surrealdb_…` setting of another name.
    """
    given = {}
    for name in names:
        value = app.conf.get(PREFIX + name)
        if value is not None:
            given[name] = value
    known = [PREFIX + name for name in names]
    for name in given_setting_names(app.conf):  # only now: the first look at app.conf is what loads it
        # Without a namespace Celery finds no names in capitals: they would be left out in silence.
        if name.lower().startswith(PREFIX) and name not in known:
            raise SettingsError(unknown("setting", name, known))
        if name.removeprefix(PREFIX) in may_be_none:
            given.setdefault(name.removeprefix(PREFIX), None)
    return given
