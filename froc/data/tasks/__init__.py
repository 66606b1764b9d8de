"""Tasks: `folder` reads a folder of rows, `hub` a data set of the hub, `embedded_text` makes the task that needs no download."""
