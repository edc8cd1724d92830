"""UEFI as a guest's firmware: its image, what it reads of us, its variables, and disks that it can boot."""
