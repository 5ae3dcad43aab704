"""memcached behind the Protocol ``Memcache``: a client of one server, and a ring of several."""
