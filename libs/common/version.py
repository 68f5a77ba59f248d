"""The version of what is deployed: in the OpenAPI documents, in `superfan_build_info`, in pyproject.toml."""

VERSION = "0.2.0"
