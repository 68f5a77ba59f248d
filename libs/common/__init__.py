"""What at least two services use; mechanism only, no business rule."""
