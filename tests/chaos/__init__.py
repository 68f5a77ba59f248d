"""The chaos battery: faults under load on real processes, and a checker of what became of every acknowledged event."""
