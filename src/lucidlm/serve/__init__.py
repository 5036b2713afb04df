"""Models over HTTP: OpenAI's protocol, an endpoint for each task, and a web page."""
