"""All real data through HTTP, compared user by user with answers that were computed elsewhere."""
