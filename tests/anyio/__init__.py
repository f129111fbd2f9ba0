"""The adapter for trio and asyncio."""
