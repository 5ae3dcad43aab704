"""Connections and their limits: accepting, counting, draining, closing."""
