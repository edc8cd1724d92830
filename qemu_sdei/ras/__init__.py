"""Error records: Common Platform Error Records (UEFI 2.10 appendix N) and generic error status blocks (ACPI 6.5
18.3.2.7.1), made, read, printed, checked, and as JSON.
"""
