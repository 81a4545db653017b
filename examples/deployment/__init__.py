"""What the compose files of the examples have in common."""
