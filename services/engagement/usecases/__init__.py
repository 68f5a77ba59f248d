"""engagement's business actions."""
