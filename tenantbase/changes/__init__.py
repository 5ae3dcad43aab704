"""The change feed: what was written, told to those who watch."""
