"""The command line: batch jobs from run files."""
