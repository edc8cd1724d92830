"""Names of code addresses: symbol tables, where a kernel lies, and whether the symbols are those of that kernel."""
