"""Large bodies are parsed in a child process, so that the event loop keeps turning."""
