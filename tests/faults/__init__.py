"""What production brings, caused for real: docs/reliability.md lists each fault and its test."""
