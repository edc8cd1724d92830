"""What is made of records: pages and files for other programs."""
