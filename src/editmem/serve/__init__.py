"""Serve an edited model over HTTP (`app.build_app`), and talk to its memory from elsewhere (`client.Client`)."""
