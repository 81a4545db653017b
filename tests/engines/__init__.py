"""How a test gets a server: real SurrealDB engines, each in a process of its own.

See tests/README.md. `matrix` says which engines there are and where they come from, `running` what can be done
with one, `installed` gets those that neither the system nor the test's own environment has.
"""

from .matrix import MATRIX, Provider, Unavailable, all_specs, find, start
from .running import Database, EngineFailed, EngineSpec, NotPossible, RunningEngine

__all__ = [
    "MATRIX",
    "Database",
    "EngineFailed",
    "EngineSpec",
    "NotPossible",
    "Provider",
    "RunningEngine",
    "Unavailable",
    "all_specs",
    "find",
    "start",
]
