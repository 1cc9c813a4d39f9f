"""Publishing, delivering, acknowledging, sessions, and what time brings about: asyncio, no gRPC, no SQL."""
