"""Where events wait on this machine's disk while Kafka does not take them."""

from services.ingest.spool.file import EVENT_HEADERS, Figures, Row, SpoolError, scan
from services.ingest.spool.writer import Spool

__all__ = ["EVENT_HEADERS", "Figures", "Row", "Spool", "SpoolError", "scan"]
