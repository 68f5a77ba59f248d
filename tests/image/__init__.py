"""The images, made by hand from deploy/Dockerfile, as no Docker engine is needed for the tests."""
