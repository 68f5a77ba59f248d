"""Bodies of profile's API."""
