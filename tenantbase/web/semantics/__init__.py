"""What HTTP says of a request: target, body, conditions, ranges, media types."""
