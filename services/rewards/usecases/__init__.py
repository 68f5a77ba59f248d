"""rewards' business actions; shared by HTTP and Kafka."""

SERVICE = "rewards"
SOURCE = f"/{SERVICE}"
