"""Frame after frame within a deadline, and what becomes of those that are late or broken."""
