"""Handlers: one class for each group of routes. They call ``Database`` and return an ``Answer``."""
