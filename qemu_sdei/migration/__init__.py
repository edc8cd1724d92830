"""Moving a running guest from one QEMU and backend to another pair."""
