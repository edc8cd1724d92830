"""Tests of qemu_sdei/views."""
