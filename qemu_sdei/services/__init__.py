"""Firmware services: each one small file, registered with `qemu_sdei.smccc.registry`."""
