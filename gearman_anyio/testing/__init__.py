"""Tools to test applications on trio and asyncio."""
