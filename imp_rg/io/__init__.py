"""Everything that touches files: run folders, resumable state, tickets, tables."""
