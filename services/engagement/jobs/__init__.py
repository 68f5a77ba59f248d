"""What a worker does beside its consumers, and what `job rebuild` needs to know."""
