"""`make bench`: the performance budget, measured in one run beside the limit and the usual way."""
