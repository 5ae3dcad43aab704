"""Parses large bodies in a child process, so that the event loop is not blocked."""
