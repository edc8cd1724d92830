"""The sections of error records, a table each."""
