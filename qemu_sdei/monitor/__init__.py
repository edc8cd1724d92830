"""The host's side of `guest/monitor`: frame layout, shared window, doorbell, micro-operations, the patched image."""
