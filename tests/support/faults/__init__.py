"""Faults that tests cause: a proxy, a server that misbehaves, workers that die, users without rights."""
