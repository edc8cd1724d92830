"""The acceptance test of an arm64 kernel and its firmware, as pytest files: `pytest --pyargs qemu_sdei.scenarios`."""
