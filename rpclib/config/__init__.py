"""Settings, where they come from, and the drivers that are installed."""
