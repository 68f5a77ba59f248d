"""profile's rules. Pure: events and rows in, facts and decisions out; no clock, no I/O."""
