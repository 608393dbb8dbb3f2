"""What both processes, the command line and the files on disk share: standard library only."""
