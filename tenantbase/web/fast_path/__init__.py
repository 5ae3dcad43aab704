"""The fast path: plain requests answered without aiohttp."""
