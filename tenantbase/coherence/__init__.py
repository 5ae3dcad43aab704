"""The read-through and write-through policy: which copies in memcached are valid."""
