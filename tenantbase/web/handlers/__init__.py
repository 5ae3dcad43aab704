"""A class of handlers for each group of routes."""
