"""The change feed: tells watchers what was written."""
