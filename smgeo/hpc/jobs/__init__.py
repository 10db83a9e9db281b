"""Job scripts: what is asked for, against what the site allows, and the script."""
