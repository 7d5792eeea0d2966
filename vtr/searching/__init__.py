"""Search inside videos: a folder or a store, a query, the moments that show it."""
