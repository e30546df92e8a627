"""opsbot: diagnoses, asks a second person, repairs once, and proves it."""
