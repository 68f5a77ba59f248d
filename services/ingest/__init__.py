"""Takes events in over HTTP, from senders with a key and from platforms, and puts them into Kafka."""
