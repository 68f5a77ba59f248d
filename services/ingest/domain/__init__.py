"""Pure rules of ingest: strict JSON, what makes an event complete, how a refused one is masked."""
