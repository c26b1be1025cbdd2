"""What is true of a recording: labels and poses, from topics, tables and files."""
