"""Plain requests answered without aiohttp's machinery."""
