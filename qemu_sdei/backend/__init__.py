"""The process that serves one guest: decides (`firmware`), remembers (`journal`), listens (`server`, `control`)."""
