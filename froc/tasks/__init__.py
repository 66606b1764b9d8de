"""What can be worked on: `folder` reads a task folder, `embedded` makes the one that needs no download."""
