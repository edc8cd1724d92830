"""Two firmwares compared: sequences of calls, made at random, of which each that differs is made short."""
