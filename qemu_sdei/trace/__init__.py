"""What happened in a guest, as records: kept, read, put on one time axis, shown."""
