"""Crash dumps of arm64 Linux (vmcore): what is in one."""
