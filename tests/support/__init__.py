"""What tests of several parts share: a real PostgreSQL, a real Kafka, whole systems."""
