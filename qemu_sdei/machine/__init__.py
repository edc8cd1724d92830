"""Former names of modules that the documentation told users to import; they warn. To go with the next release."""
