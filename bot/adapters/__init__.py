"""The outside systems, one per file; no adapter imports another."""
