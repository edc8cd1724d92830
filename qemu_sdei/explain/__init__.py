"""What is the matter with a guest, said as a colleague would: see README.md. Pure."""
