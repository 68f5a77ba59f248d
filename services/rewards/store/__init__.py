"""All SQL of rewards. Whoever writes days, entries, lots or a balance holds the holder's lock; see `holders.lock`."""
