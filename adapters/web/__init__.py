"""Health, version, metrics and the web page."""
