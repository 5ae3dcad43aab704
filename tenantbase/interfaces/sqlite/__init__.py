"""SQLite behind the ``Store`` protocol."""
