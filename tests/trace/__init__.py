"""Tests of qemu_sdei.trace."""
