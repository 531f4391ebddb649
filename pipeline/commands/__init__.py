"""The command line: each command parses its arguments and calls a function of another folder."""
