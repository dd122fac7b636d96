"""The explorer of notebook 20 in JupyterLab."""
