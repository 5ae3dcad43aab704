"""Which copies in memcached may be believed: the read-through and write-through policy and its parts."""
