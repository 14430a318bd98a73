"""Runs programs under schedules, with stores and threads."""
