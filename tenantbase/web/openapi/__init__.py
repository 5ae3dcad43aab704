"""The description of the API: OpenAPI 3.1, and a page that shows it."""
