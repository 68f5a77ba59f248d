"""`superfan demo`: real orders and made-up fans through the front door, and what came of them.

Everything follows from the day and the seed, ids too: running it again changes nothing.
"""
