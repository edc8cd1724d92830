"""The rules that `acpi.verify` checks tables by, one module for each kind of table."""
