"""The figures of all workers: shared, added up, and shown to Prometheus and people."""
