"""Every command and every page on a million results."""
