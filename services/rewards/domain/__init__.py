"""The rules of rewards: which deeds earn how many points, what sign-in days amount to, and when a level is reached.
Pure: values in, values out."""
