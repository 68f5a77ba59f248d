"""Starts, watches and stops PostgreSQL, Kafka and the services on one machine."""
