"""Bodies of engagement's API."""
