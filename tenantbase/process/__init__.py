"""From the configuration to running processes: options, wiring, worker, supervisor, sockets."""
