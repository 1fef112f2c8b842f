"""Every way in: OpenAI HTTP, KServe, the web page and the command line."""
