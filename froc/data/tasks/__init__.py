"""Tasks: `folder` reads a folder of rows, `embedded_text` makes the task that needs no download."""
