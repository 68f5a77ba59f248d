"""profile's business actions; shared by HTTP and Kafka."""
