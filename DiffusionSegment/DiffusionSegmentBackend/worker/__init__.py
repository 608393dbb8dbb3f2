"""The warm process behind the panel: its server, its engine, and the self-test."""
