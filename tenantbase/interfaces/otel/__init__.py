"""OpenTelemetry: traces of requests, in ``tracer.py``."""
