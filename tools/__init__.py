"""What writes the schema, docs, locales and workflows; not installed."""
