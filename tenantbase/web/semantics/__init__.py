"""The semantics of HTTP: targets, bodies, conditions, ranges, content negotiation."""
