"""What a group of writes does: the rules that all databases share. No I/O, no driver."""
