"""memcached behind the ``CacheServer`` protocol."""
