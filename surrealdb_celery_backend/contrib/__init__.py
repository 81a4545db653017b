"""Optional parts, each imported by the app that wants it."""

__all__: list[str] = []
