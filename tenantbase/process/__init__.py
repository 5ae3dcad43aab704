"""From options to running processes: configuration, wiring, worker, supervisor, sockets."""
