"""Dead letters: events that no code could apply, kept with their reason until somebody repairs or drops them."""
