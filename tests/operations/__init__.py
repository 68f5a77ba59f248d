"""Scaling, restarting, upgrading and configuring a running system, as an operator does, under load."""
