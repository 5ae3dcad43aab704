"""The command line's operations, on a database file or a server."""
