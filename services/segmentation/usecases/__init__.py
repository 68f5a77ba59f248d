"""segmentation's business actions; shared by whatever brings events."""

SERVICE = "segmentation"
