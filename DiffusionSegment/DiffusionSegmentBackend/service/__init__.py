"""The HTTPS server: sessions of several users in front of worker processes (extra `service`)."""
