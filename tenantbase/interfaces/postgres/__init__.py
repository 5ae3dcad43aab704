"""PostgreSQL behind the ``SharedStore`` Protocol, over asyncpg. `docs/cluster.md` has the design."""
