"""Who is told of a run while it trains: trackers of its figures, and a webhook when it ends."""
