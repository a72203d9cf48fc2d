"""Episodes to look at in a browser, from a file: no server, no script, nothing fetched."""
