"""Filters of the app's templates."""

__all__: list[str] = []
