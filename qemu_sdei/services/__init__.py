"""Firmware services: each one small file, and a line in `qemu_sdei.services.built_in`."""
