"""Firmware profiles: firmware that misbehaves on purpose, as data. Pure: no I/O but reading a profile's file."""
