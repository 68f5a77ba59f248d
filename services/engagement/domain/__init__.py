"""Who is written to and why. Pure: events and what is known in, facts and decisions out."""
