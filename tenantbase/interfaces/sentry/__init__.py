"""Sentry: reports of errors, in ``reporter.py``."""
